// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// delayed is a queue that notes what is added to it after a delay, and nothing else.
type delayed struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	added []reconcile.Request
}

func (d *delayed) AddAfter(r reconcile.Request, _ time.Duration) { d.added = append(d.added, r) }

// TestNodeEvents: a change of a node wakes a DaemonSet only when its pods may start or stay there now and couldn't before, or the other way round.
func TestNodeEvents(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	s := newScope(t, func(spec *pappsv1.DaemonSetSpec) { spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"} })
	pod := makePod("p held new")
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(s.set, kind)}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(s.set, pod).WithIndex(&pcorev1.Pod{}, kube.ByNode, kube.NodeIndex).Build()
	r := NewReconciler(c, c)
	h := nodeEvents{r}

	node := func(name string, change ...func(*pcorev1.Node)) *pcorev1.Node {
		n := makeNode(name)
		n.Labels["disk"] = "ssd"
		for _, f := range change {
			f(n)
		}
		return n
	}
	hdd := func(n *pcorev1.Node) { n.Labels["disk"] = "hdd" }
	label := func(n *pcorev1.Node) { n.Labels["other"] = "label" }
	cordon := func(n *pcorev1.Node) { n.Spec.Unschedulable = true }
	busy := func(n *pcorev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, LastHeartbeatTime: metav1.Now()}}
		n.Status.Allocatable = corev1.ResourceList{}
	}
	taint := func(key string, effect corev1.TaintEffect) func(*pcorev1.Node) {
		return func(n *pcorev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
	}
	create := func(n *pcorev1.Node) func(kube.Queue) {
		return func(q kube.Queue) { h.Create(t.Context(), event.CreateEvent{Object: n}, q) }
	}
	update := func(before, after *pcorev1.Node) func(kube.Queue) {
		return func(q kube.Queue) { h.Update(t.Context(), event.UpdateEvent{ObjectOld: before, ObjectNew: after}, q) }
	}
	remove := func(n *pcorev1.Node) func(kube.Queue) {
		return func(q kube.Queue) { h.Delete(t.Context(), event.DeleteEvent{Object: n}, q) }
	}
	woken := func(act func(kube.Queue)) int {
		q := &delayed{}
		act(q)
		return len(q.added)
	}
	if woken(create(node("a", hdd))) != 1 {
		t.Error("a DaemonSet that wasn't looked at yet isn't woken")
	}
	r.recall(client.ObjectKeyFromObject(s.set), s)
	for name, tt := range map[string]struct {
		act  func(kube.Queue)
		want int
	}{
		"a matching node comes":                  {create(node("a")), 1},
		"another node comes":                     {create(node("a", hdd)), 0},
		"another node comes that holds a pod":    {create(node("held", hdd)), 1},
		"a matching node goes":                   {remove(node("a")), 1},
		"the node's status changes":              {update(node("a"), node("a", busy)), 0},
		"a label changes that nobody asks about": {update(node("a"), node("a", label)), 0},
		"a label changes that is asked about":    {update(node("a", hdd), node("a")), 1},
		"it is cordoned":                         {update(node("a"), node("a", cordon)), 0},
		"a taint that daemons tolerate":          {update(node("a"), node("a", taint(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute))), 0},
		"a taint of a node that doesn't match":   {update(node("a", hdd), node("a", hdd, taint("mine", corev1.TaintEffectNoExecute))), 0},
		"NoSchedule":                             {update(node("a"), node("a", taint("mine", corev1.TaintEffectNoSchedule))), 1},
		"NoExecute after NoSchedule":             {update(node("a", taint("mine", corev1.TaintEffectNoSchedule)), node("a", taint("mine", corev1.TaintEffectNoExecute))), 1},
		"one more NoExecute":                     {update(node("a", taint("mine", corev1.TaintEffectNoExecute)), node("a", taint("mine", corev1.TaintEffectNoExecute), taint("more", corev1.TaintEffectNoExecute))), 0},
	} {
		if got := woken(tt.act); got != tt.want {
			t.Errorf("%s: %d woken, want %d", name, got, tt.want)
		}
	}
	// What is remembered goes with the DaemonSet, and with another one of the same name.
	other := *s
	other.set = s.set.DeepCopy()
	other.set.UID = "another"
	if m := r.recall(client.ObjectKeyFromObject(s.set), &other); m.uid != "another" {
		t.Errorf("remembered is %s", m.uid)
	}
	if err := c.Delete(context.Background(), s.set); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.set)}); err != nil || len(r.known) != 0 {
		t.Errorf("%d remembered, %v", len(r.known), err)
	}
}
