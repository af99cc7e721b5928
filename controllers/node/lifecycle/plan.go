// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

// Reasons of conditions that this controller sets; upstream's.
const (
	// reasonUnknown: the agent reported once, and stopped.
	reasonUnknown = "NodeStatusUnknown"
	// reasonNever: the agent has never reported.
	reasonNever = "NodeStatusNeverUpdated"
)

// judged are the conditions that mean nothing without an agent.
var judged = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// owned are the keys of the taints that follow from a node's conditions.
var owned = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure,
	corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
}

// lostStatus is the status of a node whose agent is gone, and whether that differs from what the node has.
func lostStatus(node *pcorev1.Node, now time.Time) (pcorev1.NodeStatus, bool) {
	status := *node.Status.DeepCopy()
	for _, kind := range judged {
		old, ok := condition.Node.Get(status.Conditions, string(kind))
		if ok && old.Status == corev1.ConditionUnknown {
			continue
		}
		c := condition.Condition{
			Type: string(kind), Status: corev1.ConditionUnknown, Reason: reasonUnknown,
			Message: "The node's agent stopped renewing its lease.",
		}
		if !ok {
			c.Reason, c.Message = reasonNever, "The node's agent has never reported."
		}
		status.Conditions = condition.Node.Set(status.Conditions, c, now)
		if ok { // the heartbeat stays the agent's last
			for i := range status.Conditions {
				if status.Conditions[i].Type == kind {
					status.Conditions[i].LastHeartbeatTime = old.LastUpdateTime
				}
			}
		}
	}
	columns := pcorev1.Columns{}
	for k, v := range status.Columns {
		columns[k] = v
	}
	columns["status"] = "NotReady"
	if node.Spec.Unschedulable {
		columns["status"] += ",SchedulingDisabled"
	}
	status.Columns = columns
	status.ObservedGeneration = node.Generation
	changed := !equality.Semantic.DeepEqual(status.Conditions, node.Status.Conditions) || !equality.Semantic.DeepEqual(status.Columns, node.Status.Columns)
	return status, changed
}

// taints are the taints that a node should have, and whether it has them. Foreign taints stay. Upstream's rules
// (k8s.io/kubernetes pkg/controller/nodelifecycle): Ready=False means not-ready, Unknown means unreachable, both keeping new
// pods away and moving those that don't tolerate it.
func taints(node *pcorev1.Node, now time.Time) ([]corev1.Taint, bool) {
	var want []corev1.Taint
	add := func(key string, effects ...corev1.TaintEffect) {
		for _, e := range effects {
			want = append(want, corev1.Taint{Key: key, Effect: e})
		}
	}
	for i := range node.Status.Conditions {
		c := &node.Status.Conditions[i]
		switch {
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse:
			add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown:
			add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)
		case c.Status != corev1.ConditionTrue:
		case c.Type == corev1.NodeMemoryPressure:
			add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodeDiskPressure:
			add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodePIDPressure:
			add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodeNetworkUnavailable:
			add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
		}
	}
	if node.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	return merge(node.Spec.Taints, want, now)
}

// merge keeps foreign taints and those that are wanted and there already, in their order, and adds what is missing.
func merge(have, want []corev1.Taint, now time.Time) ([]corev1.Taint, bool) {
	var out []corev1.Taint
	changed := false
	for _, t := range have {
		i := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.MatchTaint(&t) })
		switch {
		case i >= 0:
			want = slices.Delete(slices.Clone(want), i, i+1)
		case slices.Contains(owned, t.Key):
			changed = true
			continue
		}
		out = append(out, t)
	}
	for _, t := range want {
		if t.Effect == corev1.TaintEffectNoExecute {
			stamp := condition.Stamp(now) // how long pods may stay is counted from here
			t.TimeAdded = &metav1.Time{Time: stamp.Time}
		}
		out, changed = append(out, t), true
	}
	return out, changed
}
