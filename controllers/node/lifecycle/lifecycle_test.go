// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func nodeWith(kind corev1.NodeConditionType, status corev1.ConditionStatus, taints ...corev1.Taint) *pcorev1.Node {
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	n.Spec.Taints = taints
	n.Status.Conditions = []corev1.NodeCondition{{Type: kind, Status: status}}
	return n
}

func TestTaints(t *testing.T) {
	foreign := corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoSchedule}
	unreachable := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule}
	cordoned := nodeWith(corev1.NodeReady, corev1.ConditionTrue)
	cordoned.Spec.Unschedulable = true
	for what, test := range map[string]struct {
		node    *pcorev1.Node
		want    string
		changed bool
	}{
		"ready":        {node: nodeWith(corev1.NodeReady, corev1.ConditionTrue)},
		"not ready":    {node: nodeWith(corev1.NodeReady, corev1.ConditionFalse), want: "node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute", changed: true},
		"unknown":      {node: nodeWith(corev1.NodeReady, corev1.ConditionUnknown, foreign), want: "mine:NoSchedule node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute", changed: true},
		"back again":   {node: nodeWith(corev1.NodeReady, corev1.ConditionTrue, unreachable, foreign), want: "mine:NoSchedule", changed: true},
		"disk is full": {node: nodeWith(corev1.NodeDiskPressure, corev1.ConditionTrue), want: "node.kubernetes.io/disk-pressure:NoSchedule", changed: true},
		"cordoned":     {node: cordoned, want: "node.kubernetes.io/unschedulable:NoSchedule", changed: true},
	} {
		got, changed := taints(test.node, start)
		var list []string
		for _, taint := range got {
			list = append(list, taint.Key+":"+string(taint.Effect))
		}
		if s := strings.Join(list, " "); s != test.want || changed != test.changed {
			t.Errorf("%s: %q (changed: %v), want %q", what, s, changed, test.want)
		}
		test.node.Spec.Taints = got
		if _, again := taints(test.node, start); again {
			t.Errorf("%s: a second look changes the taints again", what)
		}
	}
}

// TestLease: a node is lost when its lease isn't renewed for the grace period, by this controller's own clock, and is left to its
// agent when it is renewed again.
func TestLease(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{pcorev1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	node := nodeWith(corev1.NodeReady, corev1.ConditionTrue)
	renewed := metav1.NewMicroTime(start.Add(-24 * time.Hour)) // a clock that is far behind
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: LeaseNamespace, Name: "a"}}
	lease.Spec.RenewTime = &renewed
	c := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&pcorev1.Node{}).WithObjects(node, lease).Build()
	r := NewReconciler(c, Options{})
	now := start
	r.now = func() time.Time { return now }
	ctx := context.Background()
	look := func() *pcorev1.Node {
		t.Helper()
		if _, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: types.NamespacedName{Name: "a"}}); err != nil {
			t.Fatal(err)
		}
		var fresh pcorev1.Node
		if err := c.Get(ctx, types.NamespacedName{Name: "a"}, &fresh); err != nil {
			t.Fatal(err)
		}
		return &fresh
	}
	if n := look(); n.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Error("a clock that is behind makes a node lost")
	}
	now = now.Add(39 * time.Second)
	if n := look(); n.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Error("a node is lost within the grace period")
	}
	now = now.Add(2 * time.Second)
	n := look()
	if n.Status.Conditions[0].Status != corev1.ConditionUnknown || len(n.Spec.Taints) != 2 || n.Status.Columns["status"] != "NotReady" {
		t.Fatalf("a lost node has conditions %+v, taints %v, columns %v", n.Status.Conditions, n.Spec.Taints, n.Status.Columns)
	}
	later := metav1.NewMicroTime(renewed.Add(time.Minute))
	lease.Spec.RenewTime = &later
	if err := c.Update(ctx, lease); err != nil {
		t.Fatal(err)
	}
	n.Status.Conditions[0].Status = corev1.ConditionTrue // as the agent does
	if err := c.Status().Update(ctx, n); err != nil {
		t.Fatal(err)
	}
	if n := look(); len(n.Spec.Taints) != 0 || n.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("a node that is back has taints %v, conditions %+v", n.Spec.Taints, n.Status.Conditions)
	}
}
