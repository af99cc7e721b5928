// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	disruptioncontroller "github.com/pinnace-dev/pinnace/controllers/policy/disruption"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/disruption"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/test/env"
)

// budgetWorld is a world with the budgets' loop, whose clock the test moves.
type budgetWorld struct {
	*world
	ahead atomic.Int64
}

func newBudgetWorld(t *testing.T, wrap func(client.Client) client.Client) *budgetWorld {
	t.Helper()
	b := &budgetWorld{world: newWorld(t, options{nodes: 2})}
	mgr, err := ctrl.NewManager(env.Start(t).Config, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		NewClient: func(cfg *restConfig, opts client.Options) (client.Client, error) {
			c, err := kube.NewClient(cfg, opts)
			if err == nil && wrap != nil {
				c = wrap(c)
			}
			return c, err
		},
	})
	b.must(err)
	b.must(disruptioncontroller.NewReconciler(mgr.GetClient(), disruptioncontroller.Options{Now: b.now}).SetupWithManager(mgr))
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(b.ctx)
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		b.must(b.DeleteAllOf(b.ctx, &ppolicyv1.PodDisruptionBudget{}, client.InNamespace(b.namespace)))
		cancel()
		<-done
	})
	return b
}

func (w *budgetWorld) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (w *budgetWorld) budget(name, app string, change func(*policyv1.PodDisruptionBudgetSpec)) *ppolicyv1.PodDisruptionBudget {
	w.Helper()
	pdb := &ppolicyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	change(&pdb.Spec)
	w.must(w.Create(w.ctx, pdb))
	return pdb
}

// counts waits until a budget says: expected, desired healthy, healthy, allowed.
func (w *budgetWorld) counts(pdb *ppolicyv1.PodDisruptionBudget, want string) {
	w.Helper()
	w.eventually("budget "+pdb.Name+" counts "+want, func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(pdb), pdb))
		s := pdb.Status
		got := fmt.Sprint(s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.DisruptionsAllowed)
		if got != want || s.ObservedGeneration != pdb.Generation {
			return fmt.Errorf("%s, %+v", got, s.Conditions)
		}
		return nil
	})
}

func (w *budgetWorld) reason(pdb *ppolicyv1.PodDisruptionBudget, kind, reason, says string) {
	w.Helper()
	w.eventually("budget "+pdb.Name+" says "+reason, func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(pdb), pdb))
		c, _ := condition.Meta.Get(pdb.Status.Conditions, kind)
		if c.Reason != reason || !strings.Contains(c.Message, says) {
			return fmt.Errorf("conditions %+v", pdb.Status.Conditions)
		}
		return nil
	})
}

// evict does what an eviction does: decide, claim, delete.
func (w *budgetWorld) evict(pod *pcorev1.Pod, deleteIt bool) disruption.Decision {
	w.Helper()
	var d disruption.Decision
	w.eventually("the eviction of "+pod.Name+" is decided", func() error {
		var list ppolicyv1.PodDisruptionBudgetList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		var budgets []*ppolicyv1.PodDisruptionBudget
		for i := range list.Items {
			budgets = append(budgets, &list.Items[i])
		}
		if d = disruption.MayEvict(pod, budgets, w.now()); d.Claim == nil {
			return nil
		}
		return w.Status().Update(w.ctx, d.Claim)
	})
	if d.Answer == disruption.Yes && deleteIt {
		w.must(w.Delete(w.ctx, pod))
	}
	return d
}

// TestBudgetStory follows a budget of a Deployment.
func TestBudgetStory(t *testing.T) {
	w := newBudgetWorld(t, nil)
	pdb := w.budget("guard", "web", func(s *policyv1.PodDisruptionBudgetSpec) { s.MaxUnavailable = new(intstr.FromString("25%")) })
	w.reason(pdb, pcorev1.ConditionReady, "NoPods", "matches no pod")
	d := w.deployment("web", 4)
	w.ready(d)
	w.counts(pdb, "4 3 4 1")
	if got := pdb.Status.Columns; got["maxUnavailable"] != "25%" || got["minAvailable"] != "N/A" {
		t.Errorf("columns %v", got)
	}

	// A rollout has two ReplicaSets, and expects as many pods as the Deployment wants all the same.
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.ready(d)
	w.counts(pdb, "4 3 4 1")

	pods := w.pods("web")
	if d := w.evict(&pods[0], false); d.Answer != disruption.Yes || d.Claim == nil {
		t.Fatalf("the first eviction: %+v", d)
	}
	w.counts(pdb, "4 3 3 0")
	if d := w.evict(&pods[1], false); d.Answer != disruption.NotNow || !strings.Contains(d.Message, "needs 3 healthy pods and has 3") {
		t.Fatalf("the second eviction: %+v", d)
	}
	// Nobody deletes the first one: after two minutes it counts again.
	w.ahead.Add(int64(disruption.DeletionTimeout + time.Second))
	pdb.Spec.MaxUnavailable = new(intstr.FromInt32(1))
	w.eventually("the budget takes the change", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(pdb), pdb))
		pdb.Spec.MaxUnavailable = new(intstr.FromInt32(1))
		return w.Update(w.ctx, pdb)
	})
	w.counts(pdb, "4 3 4 1")
	w.events("NotDeleted", "NoPods")
	if len(pdb.Status.DisruptedPods) != 0 {
		t.Errorf("noted are %v", pdb.Status.DisruptedPods)
	}
	if d := w.evict(&pods[0], true); d.Answer != disruption.Yes {
		t.Fatalf("the third eviction: %+v", d)
	}
	w.counts(pdb, "4 3 4 1") // once its successor is ready

	other := w.budget("other", "web", func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = new(intstr.FromInt32(1)) })
	w.counts(other, "4 1 4 3")
	w.reason(pdb, pcorev1.ConditionReady, "MultiplePodDisruptionBudgets", "other selects some of the same pods")
	w.must(w.Delete(w.ctx, other))
	w.reason(pdb, pcorev1.ConditionReady, "Counted", "")
}

// TestBudgetOwners: what owners want is found through scale, and where it can't be, the budget says so and allows nothing.
func TestBudgetOwners(t *testing.T) {
	w := newBudgetWorld(t, nil)
	pod := func(name string, owner *metav1.OwnerReference) {
		p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace, Labels: map[string]string{"app": name}}}
		p.Spec = template(nil, "image:1").Spec
		if owner != nil {
			p.OwnerReferences = []metav1.OwnerReference{*owner}
		}
		w.must(w.Create(w.ctx, p))
	}
	share := func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = new(intstr.FromString("50%")) }

	rc := &pcorev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc", Namespace: w.namespace}}
	rc.Spec.Replicas, rc.Spec.Template = new(int32(3)), new(template(map[string]string{"app": "rc"}, "image:1"))
	w.must(w.Create(w.ctx, rc))
	w.counts(w.budget("rc", "rc", share), "3 2 3 1")
	w.must(w.Delete(w.ctx, rc, client.PropagationPolicy(metav1.DeletePropagationBackground)))

	// Kinds without a scale, a native and a custom one. A real case is a Job, which would take such a pod for a stranger here.
	flat := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "flat", Namespace: w.namespace}}
	w.must(w.Create(w.ctx, flat))
	pod("flat-pod", metav1.NewControllerRef(flat, corev1.SchemeGroupVersion.WithKind("ConfigMap")))
	w.reason(w.budget("flat", "flat-pod", share), pcorev1.ConditionStalled, "SyncFailed", "ConfigMap flat can't be scaled")
	custom := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "custom", Namespace: w.namespace}}
	w.must(w.Create(w.ctx, custom))
	pod("custom-pod", metav1.NewControllerRef(custom, pcorev1.GroupVersion.WithKind("ConfigMap")))
	w.reason(w.budget("custom", "custom-pod", share), pcorev1.ConditionStalled, "SyncFailed", "ConfigMap custom can't be scaled")

	// A kind of somebody else with a scale: here a native one, which the API server scales as well.
	native := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "native", Namespace: w.namespace}}
	native.Spec.Replicas, native.Spec.Selector = new(int32(0)), map[string]string{"app": "native"}
	native.Spec.Template = &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: native.Spec.Selector}, Spec: template(nil, "image:1").Spec.PodSpec}
	w.must(w.Create(w.ctx, native))
	pod("native-pod", metav1.NewControllerRef(native, corev1.SchemeGroupVersion.WithKind("ReplicationController")))
	w.counts(w.budget("native", "native-pod", func(s *policyv1.PodDisruptionBudgetSpec) { s.MaxUnavailable = new(intstr.FromInt32(0)) }), "0 0 1 0")

	pod("alone", nil)
	alone := w.budget("alone", "alone", share)
	w.reason(alone, pcorev1.ConditionReady, "UnmanagedPods", "alone")
	w.counts(w.budget("alone-number", "alone", func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = new(intstr.FromInt32(1)) }), "1 1 1 0")
}

// TestBudgetFaults: with every status write failing, getting lost and meeting a conflict, the count comes true.
func TestBudgetFaults(t *testing.T) {
	f := newFaults()
	w := newBudgetWorld(t, f.wrap)
	d := w.deployment("web", 3)
	pdb := w.budget("guard", "web", func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = new(intstr.FromInt32(2)) })
	w.ready(d)
	w.counts(pdb, "3 2 3 1")
	pods := w.pods("web")
	if d := w.evict(&pods[0], true); d.Answer != disruption.Yes {
		t.Fatalf("%+v", d)
	}
	w.counts(pdb, "3 2 3 1")
	if f.struck["update status *v1.PodDisruptionBudget"] < 4 {
		t.Errorf("struck were %v", f.struck)
	}
}
