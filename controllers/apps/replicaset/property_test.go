// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

var web = types.NamespacedName{Namespace: "test", Name: "web"}

// model is a world with one ReplicaSet.
type model struct {
	*lagging.World
	r      *Reconciler
	counts *kube.Relay[pappsv1.ReplicaSetStatus]
}

func newModel(t *rapid.T, want int32) *model {
	m := &model{}
	m.World = lagging.New(t, lagging.Options{
		Schemes: []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme},
		Status:  []client.Object{&pappsv1.ReplicaSet{}, &pcorev1.Pod{}},
		Once:    []client.Object{&pcorev1.Pod{}},
		Before: func(w lagging.Write) error {
			if pod, ok := w.Object.(*pcorev1.Pod); ok && w.Verb == lagging.Create {
				pod.Finalizers = []string{"test/agent"} // as if placed at once
			}
			return nil
		},
		Gone: func(owner types.UID, obj client.Object) { m.r.Pods.Own.Gone(owner, obj.GetUID()) },
	})
	rs := &pappsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: web.Name, Namespace: web.Namespace, Generation: 1}}
	deployment := &pappsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: web.Name, UID: "deployment"}}
	rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(deployment, pappsv1.GroupVersion.WithKind("Deployment"))}
	rs.Spec.Replicas = &want
	rs.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	rs.Spec.Template.Labels = map[string]string{"app": "web"}
	m.Must(m.Truth.Create(context.Background(), rs))
	m.restart()
	return m
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.counts = kube.NewRelay[pappsv1.ReplicaSetStatus]()
	m.r = NewReconciler(m.Client(), m.Live(), m.counts)
	m.SeeAll()
}

// reconcile is a look, after which nobody may have been told that a size was seen before that is written.
func (m *model) reconcile() {
	m.Reconcile(m.r, web)
	rs := lagging.Get(m.World, web, &pappsv1.ReplicaSet{})
	if told, ok := m.counts.Latest(rs.UID); ok && told.ObservedGeneration > rs.Status.ObservedGeneration {
		m.T.Fatalf("generation %d was told as seen, %d is written", told.ObservedGeneration, rs.Status.ObservedGeneration)
	}
}

func (m *model) active() []*pcorev1.Pod {
	var out []*pcorev1.Pod
	for _, p := range m.Pods() {
		if workload.IsActive(p) {
			out = append(out, p)
		}
	}
	return out
}

// step lets one thing happen beside the controller.
func (m *model) step() {
	ctx := context.Background()
	pods := m.Pods()
	what := rapid.SampledFrom([]string{"reconcile", "reconcile", "see", "see", "crash", "delete", "end", "ready", "fail"}).Draw(m.T, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return
	case "see":
		m.SeeSome(4)
		return
	case "crash":
		m.Crash(5, m.reconcile, m.restart)
		return
	}
	if len(pods) == 0 {
		return
	}
	pod := lagging.Pick(m.World, "pod", pods)
	if workload.IsTerminal(pod) && what == "ready" {
		return // what has ended doesn't come back
	}
	switch what {
	case "delete":
		m.Must(m.Truth.Delete(ctx, pod))
	case "end":
		if pod.DeletionTimestamp != nil {
			pod.Finalizers = nil
			m.Must(m.Truth.Update(ctx, pod))
		}
	case "ready":
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		m.Must(m.Truth.Status().Update(ctx, pod))
	case "fail":
		pod.Status.Phase = corev1.PodFailed
		m.Must(m.Truth.Status().Update(ctx, pod))
	}
}

// TestNoPodIsDoubled: with a cache that lags, pods that fail or are deleted, and a controller that dies between any two writes, there
// are never more active pods than wanted, and in the end there are as many.
func TestNoPodIsDoubled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int32Range(0, 6).Draw(t, "want")
		m := newModel(t, want)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.step()
			if n := len(m.active()); n > int(want) {
				t.Fatalf("%d active pods, wanted are %d", n, want)
			}
		}
		for range 4 {
			m.SeeAll()
			m.reconcile()
		}
		if n := len(m.active()); n != int(want) {
			t.Fatalf("%d active pods in the end, wanted are %d", n, want)
		}
	})
}

// TestScalingDownNeverOvershoots: when the size shrinks once, as many pods stay as wanted, however often it is looked at.
func TestScalingDownNeverOvershoots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, 6)
		m.reconcile()
		m.SeeAll()
		ctx := context.Background()
		rs := lagging.Get(m.World, web, &pappsv1.ReplicaSet{})
		want := rapid.Int32Range(0, 6).Draw(t, "want")
		rs.Spec.Replicas = &want
		rs.Generation++
		m.Must(m.Truth.Update(ctx, rs))
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"reconcile", "see", "ready", "end"}).Draw(t, "event") {
			case "reconcile":
				m.reconcile()
			case "see":
				m.SeeSome(1)
			case "ready":
				for _, pod := range m.active() {
					if rapid.Bool().Draw(t, "this one") {
						pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: rapid.SampledFrom([]corev1.ConditionStatus{"True", "False"}).Draw(t, "status")}}
						m.Must(m.Truth.Status().Update(ctx, pod))
					}
				}
			case "end":
				for _, pod := range m.Pods() {
					if pod.DeletionTimestamp != nil {
						pod.Finalizers = nil
						m.Must(m.Truth.Update(ctx, pod))
						break
					}
				}
			}
			if n := len(m.active()); n < int(want) {
				t.Fatalf("%d active pods, wanted are %d", n, want)
			}
		}
	})
}
