// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// TestUnreadyReason: a node counts once pods can be placed on it.
func TestUnreadyReason(t *testing.T) {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue}
	unready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Message: "cni plugin not initialized"}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for name, tc := range map[string]struct {
		conditions []corev1.NodeCondition
		taints     []corev1.Taint
		want       string
	}{
		"open":         {[]corev1.NodeCondition{ready}, nil, ""},
		"of the user":  {[]corev1.NodeCondition{ready}, []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}, ""},
		"still closed": {[]corev1.NodeCondition{ready}, []corev1.Taint{taint}, "it is not open for pods yet"},
		"not ready":    {[]corev1.NodeCondition{unready}, []corev1.Taint{taint}, "cni plugin not initialized"},
		"silent":       {nil, nil, "it has not reported yet"},
	} {
		var node pcorev1.Node
		node.Name, node.Status.Conditions, node.Spec.Taints = "node-1", tc.conditions, tc.taints
		if got := unreadyReason(&pcorev1.NodeList{Items: []pcorev1.Node{node}}, "node-1"); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if got := unreadyReason(&pcorev1.NodeList{}, "node-1"); got != "it has not registered" {
		t.Errorf("of no node: %q", got)
	}
}
