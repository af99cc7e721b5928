// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package tainteviction

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func noExecute(key string) corev1.Taint {
	return corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute}
}

// tolerates matches any taint of that key; negative seconds mean for ever.
func tolerates(key string, seconds int64) corev1.Toleration {
	t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists}
	if seconds >= 0 {
		t.TolerationSeconds, t.Effect = &seconds, corev1.TaintEffectNoExecute
	}
	return t
}

func aPod(name string, tolerations ...corev1.Toleration) *pcorev1.Pod {
	pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Finalizers: []string{"pinnace.dev/node"}}}
	pod.Spec.NodeName, pod.Spec.Tolerations = "a", tolerations
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return pod
}

func TestPatience(t *testing.T) {
	unreachable, mine, other := noExecute(corev1.TaintNodeUnreachable), noExecute("mine"), noExecute("other")
	for what, test := range map[string]struct {
		tolerations []corev1.Toleration
		taints      []corev1.Taint
		want        string
	}{
		"not tolerated":                    {nil, []corev1.Taint{mine}, "0s"},
		"for ever":                         {[]corev1.Toleration{tolerates("mine", -1)}, []corev1.Taint{mine}, "for ever"},
		"everything":                       {[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, []corev1.Taint{mine, unreachable}, "for ever"},
		"for a while":                      {[]corev1.Toleration{tolerates("mine", 30)}, []corev1.Taint{mine}, "30s"},
		"a negative time is none":          {[]corev1.Toleration{{Key: "mine", Operator: corev1.TolerationOpExists, TolerationSeconds: new(int64(-5))}}, []corev1.Taint{mine}, "0s"},
		"one of two":                       {[]corev1.Toleration{tolerates("mine", 30)}, []corev1.Taint{mine, other}, "0s"},
		"the least of two":                 {[]corev1.Toleration{tolerates("mine", 30), tolerates("other", 20)}, []corev1.Taint{mine, other}, "20s"},
		"one for ever, one for a while":    {[]corev1.Toleration{tolerates("mine", -1), tolerates("other", 20)}, []corev1.Taint{mine, other}, "20s"},
		"the first that matches counts":    {[]corev1.Toleration{tolerates("mine", 60), tolerates("mine", 20)}, []corev1.Taint{mine}, "1m0s"},
		"a lost node, granted":             {nil, []corev1.Taint{unreachable}, "5m0s lost"},
		"a lost node, less":                {[]corev1.Toleration{tolerates(corev1.TaintNodeUnreachable, 10)}, []corev1.Taint{unreachable}, "10s lost"},
		"a lost node, for ever":            {[]corev1.Toleration{tolerates(corev1.TaintNodeUnreachable, -1)}, []corev1.Taint{unreachable}, "for ever"},
		"a lost node with a taint as well": {[]corev1.Toleration{tolerates("mine", 30)}, []corev1.Taint{unreachable, mine}, "30s"},
	} {
		stay, forever, lost := patience(test.tolerations, test.taints)
		got := stay.String()
		if forever {
			got = "for ever"
		}
		if lost {
			got += " lost"
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", what, got, test.want)
		}
	}
}

func TestHoldBack(t *testing.T) {
	for _, test := range []struct {
		nodes, lost int
		want        bool
	}{{1, 0, false}, {1, 1, true}, {2, 1, false}, {3, 2, false}, {5, 3, true}, {5, 5, true}, {10, 5, false}, {100, 60, false}, {100, 100, true}} {
		if got := holdBack(test.nodes, test.lost); got != test.want {
			t.Errorf("%d of %d lost: %t", test.lost, test.nodes, got)
		}
	}
}

type world struct {
	t      *testing.T
	client client.Client
	r      *Reconciler
	now    time.Time
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := pcorev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: start}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&pcorev1.Pod{}, &pcorev1.Node{}).
		WithIndex(&pcorev1.Pod{}, kube.ByNode, kube.NodeIndex).Build()
	w.r = NewReconciler(w.client)
	w.r.now = func() time.Time { return w.now }
	return w
}

func (w *world) look() ctrl.Result {
	w.t.Helper()
	result, err := w.r.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: "a"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

func (w *world) taint(taints ...corev1.Taint) {
	w.t.Helper()
	node := &pcorev1.Node{}
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Name: "a"}, node); err != nil {
		w.t.Fatal(err)
	}
	node.Spec.Taints = taints
	if err := w.client.Update(w.t.Context(), node); err != nil {
		w.t.Fatal(err)
	}
}

// going names the pods that are being deleted.
func (w *world) going() string {
	w.t.Helper()
	var pods pcorev1.PodList
	if err := w.client.List(context.Background(), &pods); err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp == nil {
			continue
		}
		reason := ""
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.DisruptionTarget {
				reason = c.Reason
			}
		}
		out = append(out, pod.Name+":"+reason)
	}
	return strings.Join(out, " ")
}

func aNode(name string, taints ...corev1.Taint) *pcorev1.Node {
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.Taints = taints
	return n
}

func TestPodsGoWhenTheirTimeIsOver(t *testing.T) {
	w := newWorld(t, aNode("a"), aNode("b"), aPod("at-once"), aPod("later", tolerates("mine", 60)), aPod("never", tolerates("mine", -1)))
	if w.look(); w.going() != "" {
		t.Fatalf("without a taint: %s", w.going())
	}
	w.taint(noExecute("mine"))
	if result := w.look(); w.going() != "at-once:DeletionByTaintManager" || result.RequeueAfter != time.Minute {
		t.Errorf("at once: %s, again after %s", w.going(), result.RequeueAfter)
	}
	w.now = w.now.Add(59 * time.Second)
	if w.look(); w.going() != "at-once:DeletionByTaintManager" {
		t.Errorf("after 59 s: %s", w.going())
	}
	// A taint that goes in between begins anew.
	w.taint()
	w.look()
	w.taint(noExecute("mine"))
	w.look()
	w.now = w.now.Add(59 * time.Second)
	if w.look(); w.going() != "at-once:DeletionByTaintManager" {
		t.Errorf("59 s after it came again: %s", w.going())
	}
	w.now = w.now.Add(time.Second)
	if w.look(); w.going() != "at-once:DeletionByTaintManager later:DeletionByTaintManager" {
		t.Errorf("after a minute: %s", w.going())
	}
}

func TestLostNode(t *testing.T) {
	lost := noExecute(corev1.TaintNodeUnreachable)
	w := newWorld(t, aNode("a", lost), aNode("b"), aPod("p"))
	w.look()
	pod := &pcorev1.Pod{}
	if err := w.client.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "p"}, pod); err != nil {
		t.Fatal(err)
	}
	if c := pod.Status.Conditions[0]; c.Status != corev1.ConditionFalse || c.Reason != "NodeNotReady" {
		t.Errorf("a pod of a node that nobody reaches: %+v", c)
	}
	w.now = w.now.Add(299 * time.Second)
	if w.look(); w.going() != "" {
		t.Errorf("within the granted time: %s", w.going())
	}
	w.now = w.now.Add(time.Second)
	if w.look(); w.going() != "p:DeletionByTaintManager" {
		t.Errorf("after it: %s", w.going())
	}
}

func TestNobodyGoesWhenAllNodesAreLost(t *testing.T) {
	lost := noExecute(corev1.TaintNodeUnreachable)
	w := newWorld(t, aNode("a", lost), aNode("b", lost), aPod("p"))
	w.look()
	w.now = w.now.Add(time.Hour)
	if result := w.look(); w.going() != "" || result.RequeueAfter != holdDelay {
		t.Errorf("all nodes are lost: %s", w.going())
	}
	w.taint(lost, noExecute("mine"))
	if w.look(); w.going() != "p:DeletionByTaintManager" {
		t.Errorf("somebody asked for it: %s", w.going())
	}
}

// TestNobodyGoesTooEarly: a pod goes only if, by the taints of the moment, its time since it was first seen with a taint is over; and it
// does go then.
func TestNobodyGoesTooEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		since := map[types.UID]time.Time{}
		var pods []*pcorev1.Pod
		for i := range rapid.IntRange(0, 4).Draw(t, "pods") {
			pod := aPod(fmt.Sprint(i))
			for range rapid.IntRange(0, 2).Draw(t, "tolerations") {
				pod.Spec.Tolerations = append(pod.Spec.Tolerations, tolerates(rapid.SampledFrom([]string{"mine", "other"}).Draw(t, "key"), rapid.Int64Range(-1, 60).Draw(t, "seconds")))
			}
			pods = append(pods, pod)
		}
		now := start
		for range rapid.IntRange(1, 10).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "after")) * time.Second)
			var taints []corev1.Taint
			for _, key := range []string{"mine", "other"} {
				if rapid.Bool().Draw(t, key) {
					taints = append(taints, noExecute(key))
				}
			}
			p := makePlan(situation{taints: taints, pods: pods, since: since, now: now})
			evicted := map[types.UID]bool{}
			for _, pod := range p.evict {
				evicted[pod.UID] = true
			}
			for _, pod := range pods {
				stay, forever, _ := patience(pod.Spec.Tolerations, taints)
				began, known := since[pod.UID]
				if !known {
					began = now
				}
				if due := len(taints) > 0 && !forever && !now.Before(began.Add(stay)); due != evicted[pod.UID] {
					t.Fatalf("pod %s: due %t, evicted %t", pod.Name, due, evicted[pod.UID])
				}
			}
			since = p.since
		}
	})
}
