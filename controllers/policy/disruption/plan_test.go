// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// newScope is a budget with that many ready pods of each owner; "" stands for none.
func newScope(change func(*policyv1.PodDisruptionBudgetSpec), pods map[string]int, scales map[types.UID]scale) *scope {
	s := &scope{pdb: &ppolicyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "guard", Namespace: "test", Generation: 4}}, scales: scales, now: start}
	s.pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	change(&s.pdb.Spec)
	for owner, n := range pods {
		for i := range n {
			p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod", owner, "-", i), CreationTimestamp: metav1.NewTime(start.Add(-time.Hour))}}
			if owner != "" {
				p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(owner), Name: owner, Controller: new(true)}}
			}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			s.pods = append(s.pods, p)
		}
	}
	return s
}

func least(v intstr.IntOrString) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = &v }
}

func most(v intstr.IntOrString) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(s *policyv1.PodDisruptionBudgetSpec) { s.MaxUnavailable = &v }
}

func TestCount(t *testing.T) {
	// Two ReplicaSets of one Deployment in the middle of a rollout, and a StatefulSet.
	scales := map[types.UID]scale{
		"old": {owner: "deployment", want: 4}, "new": {owner: "deployment", want: 4}, "set": {owner: "set", want: 3},
		"job": {problem: "Job x can't be scaled.", permanent: true}, "lost": {problem: "ReplicaSet x isn't there."},
	}
	type numbers struct{ Expected, Desired, Healthy, Allowed int32 }
	for what, test := range map[string]struct {
		scope *scope
		want  numbers
		ready string
	}{
		"at least a number": {newScope(least(intstr.FromInt32(2)), map[string]int{"old": 3, "": 1}, nil), numbers{4, 2, 4, 2}, "True Counted: The status says how many pods may be disrupted."},
		"a share of a Deployment in a rollout": {
			newScope(least(intstr.FromString("75%")), map[string]int{"old": 3, "new": 2}, scales), numbers{4, 3, 5, 2}, "True Counted: The status says how many pods may be disrupted.",
		},
		"at most one of two owners": {
			newScope(most(intstr.FromInt32(1)), map[string]int{"old": 4, "set": 2}, scales), numbers{7, 6, 6, 0}, "True Counted: The status says how many pods may be disrupted.",
		},
		"no pods": {newScope(most(intstr.FromInt32(1)), nil, scales), numbers{}, "True NoPods: The selector matches no pod, so there is nothing to protect."},
		"a pod of nobody": {
			newScope(most(intstr.FromInt32(1)), map[string]int{"set": 3, "": 2}, scales), numbers{3, 2, 5, 3},
			"True UnmanagedPods: Pods without a controller can't be counted (pod-0, pod-1): write spec.minAvailable as a number to protect them.",
		},
		"a pod of a job": {newScope(most(intstr.FromInt32(1)), map[string]int{"job": 1}, scales), numbers{}, "False SyncFailed: Job x can't be scaled. Stalled"},
		"a lost owner":   {newScope(most(intstr.FromInt32(1)), map[string]int{"lost": 1}, scales), numbers{}, "False SyncFailed: ReplicaSet x isn't there. Reconciling"},
	} {
		t.Run(what, func(t *testing.T) {
			s := test.scope
			c := makeCount(s)
			if diff := cmp.Diff(test.want, numbers{c.expected, c.desired, c.healthy, c.allowed}); diff != "" {
				t.Error(diff)
			}
			status := makeStatus(s, c)
			ready, _ := condition.Meta.Get(status.Conditions, pcorev1.ConditionReady)
			got := fmt.Sprintf("%s %s: %s", ready.Status, ready.Reason, ready.Message)
			for _, mark := range []string{pcorev1.ConditionReconciling, pcorev1.ConditionStalled} {
				if _, ok := condition.Meta.Get(status.Conditions, mark); ok {
					got += " " + mark
				}
			}
			if diff := cmp.Diff(test.ready, got); diff != "" {
				t.Error(diff)
			}
			allowed, ok := condition.Meta.Get(status.Conditions, policyv1.DisruptionAllowedCondition)
			if !ok || (allowed.Status == corev1.ConditionTrue) != (c.allowed > 0) {
				t.Errorf("DisruptionAllowed is %+v with %d", allowed, c.allowed)
			}
			s.pdb.Status, s.now = status, start.Add(time.Minute)
			if diff := cmp.Diff(status, makeStatus(s, makeCount(s))); diff != "" {
				t.Errorf("the status changes by itself: %s", diff)
			}
		})
	}
}

// TestFailureKeepsTheNotes: a budget that can't be counted allows nothing, and forgets no eviction.
func TestFailureKeepsTheNotes(t *testing.T) {
	s := newScope(most(intstr.FromInt32(1)), map[string]int{"lost": 2}, map[types.UID]scale{"lost": {problem: "gone"}})
	s.pdb.Status.DisruptionsAllowed, s.pdb.Status.CurrentHealthy, s.pdb.Status.ObservedGeneration = 1, 2, 3
	s.pdb.Status.DisruptedPods = map[string]metav1.Time{"podlost-0": metav1.NewTime(start)}
	status := makeStatus(s, makeCount(s))
	if status.DisruptionsAllowed != 0 || len(status.DisruptedPods) != 1 || status.CurrentHealthy != 2 || status.ObservedGeneration != 4 {
		t.Errorf("status %+v", status)
	}
}
