// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// TestStatefulSetFaults: with every write failing, timing out after it was carried out, and meeting a conflict, a StatefulSet with claims is
// created, rolled out and scaled, and no pod is made twice.
func TestStatefulSetFaults(t *testing.T) {
	f := newFaults()
	w := newWorld(t, options{nodes: 2, wrap: f.wrap})
	census := w.census()
	set := w.statefulSet("db", 3, func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{claimTemplate("data", "1Gi", "")}
		set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	})
	w.setReady(set)
	w.changeSet(set, stsImage("image:2"))
	w.setReady(set)
	w.waitImages("db", "image:2", "image:2", "image:2")
	w.changeSet(set, stsImage("image:1"))
	w.setReady(set)
	if n := census.count(); n != 9 {
		t.Errorf("%d pods were made for 3 and two rollouts of 3", n)
	}
	if revs := w.setRevisions(); len(revs) != 2 || revs[1].Revision != 3 {
		t.Errorf("history %+v", revs)
	}
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.Replicas = new(int32(1)) })
	w.setReady(set)
	w.eventually("one claim stays", func() error {
		if n := len(w.claims()); n != 1 {
			return fmt.Errorf("%d claims", n)
		}
		return nil
	})
	for _, verb := range []string{
		"create *v1.Pod", "create *v1.PersistentVolumeClaim", "create *v1.ControllerRevision", "patch *v1.ControllerRevision", "delete *v1.Pod",
		"patch *v1.PersistentVolumeClaim", "update status *v1.StatefulSet",
	} {
		if f.struck[verb] == 0 {
			t.Errorf("no fault struck %q; struck were %v", verb, f.struck)
		}
	}
}

// TestStatefulSetNewLeader: another manager takes over in the middle of things, knowing nothing of what the first one wrote last.
func TestStatefulSetNewLeader(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	census := w.census()
	set := w.statefulSet("db", 4)
	w.restart()
	w.setReady(set)
	w.changeSet(set, stsImage("image:2"))
	w.restart()
	w.setReady(set)
	w.waitImages("db", "image:2", "image:2", "image:2", "image:2")
	if n := census.count(); n != 8 {
		t.Errorf("%d pods were made for 4 and a rollout of 4", n)
	}
}

// TestStatefulSetAdopts: a set takes over the pods and revisions that an earlier one left behind, gives a pod its identity back, and says
// who is in the way.
func TestStatefulSetAdopts(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	set := w.statefulSet("db", 2)
	w.setReady(set)
	before := map[string]bool{}
	for _, p := range w.pods("db") {
		before[string(p.UID)] = true
	}
	w.must(w.Delete(w.ctx, set, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	w.eventually("the pods are orphans", func() error {
		for _, p := range w.pods("db") {
			if len(p.OwnerReferences) > 0 {
				return errNotYet
			}
		}
		return client.IgnoreNotFound(orNotYet(w.Get(w.ctx, client.ObjectKeyFromObject(set), set)))
	})
	set = w.statefulSet("db", 2)
	w.setReady(set)
	for _, p := range w.pods("db") {
		if !before[string(p.UID)] || !metav1.IsControlledBy(&p, set) {
			t.Errorf("pod %s wasn't adopted", p.Name)
		}
	}
	if revs := w.setRevisions(); len(revs) != 1 || !metav1.IsControlledBy(&revs[0], set) {
		t.Errorf("history %+v", revs)
	}
	w.eventually("db-0 loses its name", func() error {
		var pod pcorev1.Pod
		w.must(w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: "db-0"}, &pod))
		delete(pod.Labels, appsv1.StatefulSetPodNameLabel)
		return w.Update(w.ctx, &pod)
	})
	w.eventually("db-0 gets its name back", func() error {
		var pod pcorev1.Pod
		w.must(w.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: "db-0"}, &pod))
		if pod.Labels[appsv1.StatefulSetPodNameLabel] != "db-0" {
			return errNotYet
		}
		return nil
	})
	foreign := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db-2", Namespace: w.namespace}}
	foreign.Spec.Containers = []corev1.Container{{Name: "main", Image: "image:1"}}
	w.must(w.Create(w.ctx, foreign))
	w.changeSet(set, func(set *pappsv1.StatefulSet) { set.Spec.Replicas = new(int32(3)) })
	c := w.setSays(set, pcorev1.ConditionReconciling, "FailedCreate")
	if !strings.Contains(c.Message, "db-2") {
		t.Errorf("message %q", c.Message)
	}
	w.must(w.Delete(w.ctx, foreign))
	w.setReady(set)
}

// TestStatefulSetBudget: a set with claims writes each claim and each pod once, one revision, and a status for each window of time; a rollout
// writes no more than its deletions and creations besides.
func TestStatefulSetBudget(t *testing.T) {
	const pods = 10
	y := &tally{count: map[string]int{}}
	w := newWorld(t, options{nodes: 2, wrap: y.wrap})
	began := time.Now()
	set := w.statefulSet("db", pods, func(set *pappsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{claimTemplate("data", "1Gi", "")}
	})
	w.setReady(set)
	w.changeSet(set, stsImage("image:2"))
	w.setReady(set)
	took := time.Since(began)
	t.Logf("%d pods made and rolled out in order after %s; writes %v", pods, took.Round(time.Millisecond), y.count)
	for what, want := range map[string]int{
		"create *v1.Pod": 2 * pods, "delete *v1.Pod": pods, "create *v1.PersistentVolumeClaim": pods, "create *v1.ControllerRevision": 2,
		"patch *v1.PersistentVolumeClaim": 0, "patch *v1.ControllerRevision": 0, "patch *v1.Pod": 0,
	} {
		if got := y.get(what); got != want {
			t.Errorf("%d times %s, want %d", got, what, want)
		}
	}
	// At first and at the end of each of the two, and one for each window between.
	if n, most := y.get("update status *v1.StatefulSet"), 8+int(took/kube.StatusWindow); n > most {
		t.Errorf("%d status writes in %s, at most %d are in the budget", n, took, most)
	}
}

// TestStatefulSetCollision: a revision whose name somebody else holds gets another one, and status.collisionCount says so.
func TestStatefulSetCollision(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	set := w.statefulSet("db", 1)
	w.setReady(set)
	name := set.Status.UpdateRevision
	w.must(w.Delete(w.ctx, set))
	w.eventually("the set is gone with all that is its own", func() error {
		if n := len(w.setRevisions()) + len(w.pods("db")); n > 0 {
			return fmt.Errorf("%d objects are left", n)
		}
		return nil
	})
	foreign := &pappsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}, Revision: 1}
	foreign.Data.Raw = []byte(`{"some":"thing"}`)
	w.must(w.Create(w.ctx, foreign))
	set = w.statefulSet("db", 1)
	w.setReady(set)
	if set.Status.CollisionCount == nil || *set.Status.CollisionCount != 1 || set.Status.UpdateRevision == name {
		t.Errorf("revision %s, collisions %v", set.Status.UpdateRevision, set.Status.CollisionCount)
	}
}
