// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// cluster is a world with one Deployment, in which the whole Reconciler works. Of pods there are only numbers, as a ReplicaSet's status
// has them. The planner by itself, which is faster and so gets further, is model's matter.
type cluster struct {
	*lagging.World
	r     *Reconciler
	clock time.Time
	// pods says of each ReplicaSet's pods whether they are available.
	pods map[string][]bool
}

var web = types.NamespacedName{Namespace: "test", Name: "web"}

func newCluster(t *rapid.T, d *pappsv1.Deployment) *cluster {
	c := &cluster{clock: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), pods: map[string][]bool{}}
	c.World = lagging.New(t, lagging.Options{
		Schemes: []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme},
		Status:  []client.Object{&pappsv1.Deployment{}, &pappsv1.ReplicaSet{}},
		Now:     func() time.Time { return c.clock },
		Before: func(w lagging.Write) error {
			if _, ok := w.Object.(*pappsv1.ReplicaSet); ok && (w.Verb == lagging.Patch || w.Verb == lagging.Create) {
				w.Object.SetGeneration(w.Object.GetGeneration() + 1) // as an API server does for a new size
			}
			if w.Verb == lagging.Delete && len(c.pods[w.Object.GetName()]) > 0 {
				c.Broken("ReplicaSet %s is removed with %d pods", w.Object.GetName(), len(c.pods[w.Object.GetName()]))
			}
			return nil
		},
		After: func(w lagging.Write) error {
			if w.Gone {
				delete(c.pods, w.Object.GetName())
			}
			return nil
		},
		Gone: func(owner types.UID, obj client.Object) { c.r.own.Gone(owner, obj.GetUID()) },
	})
	c.Must(c.Truth.Create(context.Background(), d))
	c.restart()
	return c
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (c *cluster) restart() {
	c.r = NewReconciler(c.Client(), c.Live(), kube.NewRelay[pappsv1.ReplicaSetStatus]())
	since := c.clock
	c.r.now, c.r.since = func() time.Time { return c.clock }, func() time.Time { return since }
	c.SeeAll()
}

func (c *cluster) reconcile() {
	c.clock = c.clock.Add(time.Second)
	c.Reconcile(c.r, web)
}

func (c *cluster) deployment() *pappsv1.Deployment {
	return lagging.Get(c.World, web, &pappsv1.Deployment{})
}

func (c *cluster) sets() []*pappsv1.ReplicaSet {
	return lagging.Items[*pappsv1.ReplicaSet](c.World, &pappsv1.ReplicaSetList{})
}

// newTemplate changes the template, as a user does.
func (c *cluster) newTemplate(n int) {
	d := c.deployment()
	d.Generation++
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: fmt.Sprint("image:", n)}}
	c.Must(c.Truth.Update(context.Background(), d))
}

// sync is one look of the ReplicaSet controller, which sees the truth: it makes and deletes pods, those first that aren't available, and reports. It
// tells its counts each time, and writes them if a write is due; a new size at once, and tells of it afterwards.
func (c *cluster) sync(rs *pappsv1.ReplicaSet, due bool) {
	isNew := rs.Status.ObservedGeneration != rs.Generation
	s := &modelSet{rs: rs, pods: c.pods[rs.Name]}
	s.sync()
	c.pods[rs.Name] = s.pods
	status := *s.rs.Status.DeepCopy()
	if !isNew {
		c.r.counts.Tell(rs, status, false)
	}
	if !isNew && !due {
		return
	}
	err := c.Truth.Status().Update(context.Background(), s.rs)
	if !apierrors.IsConflict(err) {
		c.Must(err)
		c.r.counts.Tell(rs, status, true)
	}
}

func (c *cluster) totals() (there, available int32) {
	for _, pods := range c.pods {
		there += int32(len(pods))
		available += (&modelSet{pods: pods}).available()
	}
	return there, available
}

func (c *cluster) step() {
	what := rapid.SampledFrom([]string{"reconcile", "reconcile", "crash", "sync", "sync", "count", "see", "see", "available", "available", "template"}).Draw(c.T, "event")
	sets := c.sets()
	switch {
	case what == "reconcile":
		c.reconcile()
	case what == "crash":
		c.Crash(3, c.reconcile, c.restart)
	case what == "see":
		c.SeeSome(3)
	case what == "template":
		c.newTemplate(rapid.IntRange(1, 3).Draw(c.T, "template"))
	case len(sets) == 0:
	case what == "sync", what == "count":
		c.sync(lagging.Pick(c.World, "ReplicaSet", sets), what == "sync")
	case what == "available":
		if pods := c.pods[lagging.Pick(c.World, "ReplicaSet", sets).Name]; len(pods) > 0 {
			pods[rapid.IntRange(0, len(pods)-1).Draw(c.T, "pod")] = true
		}
	}
}

// settle lets everybody work undisturbed until nothing changes any longer.
func (c *cluster) settle() {
	for quiet := 0; quiet < 5; quiet++ {
		before := c.Writes()
		c.SeeAll()
		c.reconcile()
		for _, rs := range c.sets() {
			if s := rs.Status; s.ObservedGeneration != rs.Generation || int(*rs.Spec.Replicas) != len(c.pods[rs.Name]) || s.AvailableReplicas != *rs.Spec.Replicas {
				c.sync(rs, true)
			}
			for i := range c.pods[rs.Name] {
				c.pods[rs.Name][i] = true
			}
		}
		if c.Writes() > before {
			quiet = 0
		}
		if c.Writes() > 5000 {
			c.T.Fatalf("it doesn't come to rest: %+v", c.deployment().Status)
		}
	}
}

// TestReconcilerKeepsBounds: with a cache that lags for Deployments and ReplicaSets alike, and a controller that dies between any two writes, there
// are never more pods than the surge allows nor fewer available ones than the bound, and in the end all are of the newest template.
func TestReconcilerKeepsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		surge, unavailable := fence(t, "maxSurge"), fence(t, "maxUnavailable")
		replicas := rapid.Int32Range(0, 8).Draw(t, "replicas")
		d := &pappsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: web.Name, Generation: 1}}
		d.Spec = newModel(replicas, appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}}).d.Spec
		d.Spec.RevisionHistoryLimit = new(rapid.Int32Range(0, 2).Draw(t, "history"))
		c := newCluster(t, d)
		c.settle()
		st, err := readSettings(&d.Spec)
		c.Must(err)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c.step()
			if there, available := c.totals(); there > st.most() || available < st.least() {
				t.Fatalf("%d pods of at most %d, %d available of at least %d", there, st.most(), available, st.least())
			}
		}
		c.settle()
		want := c.deployment().Spec.Template.Spec.Containers[0].Image
		for _, rs := range c.sets() {
			asked := rs.Spec.Template.Spec.Containers[0].Image == want
			if n := len(c.pods[rs.Name]); asked && n != int(replicas) || !asked && n > 0 {
				t.Fatalf("ReplicaSet %s has %d pods of %d; %s is asked for", rs.Name, n, replicas, want)
			}
		}
	})
}
