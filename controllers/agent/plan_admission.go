// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/placement"
)

// Reasons for which a node doesn't take a pod, upstream's (pkg/kubelet/lifecycle). For a resource that lacks it is outOf with its name.
const (
	outOf              = "OutOf"
	reasonAffinity     = "NodeAffinity"
	reasonPorts        = "NodePorts"
	reasonTaint        = "TaintToleration"
	reasonOS           = "PodOSNotSupported"
	reasonOSLabel      = "PodOSSelectorNodeLabelDoesNotMatch"
	reasonGroupsPolicy = "SupplementalGroupsPolicyNotSupported"
)

// place is what a new pod is held against.
type place struct {
	// node is the Node object; nil: not known, and not asked.
	node        *pcorev1.Node
	allocatable corev1.ResourceList
	// withoutGroupsPolicy says that the runtime knows no strict policy for supplemental groups.
	withoutGroupsPolicy bool
}

// unfit says why a node doesn't take a new pod beside the others; the zero value when it does. The checks and their order are upstream's
// predicateAdmitHandler; placement has asked the same before, so that it is for pods that somebody else has bound, or that were bound
// while the node changed.
func unfit(pod *pcorev1.Pod, want, others holding, p place) podFailure {
	if label := pod.Labels[corev1.LabelOSStable]; label != "" && label != string(corev1.Linux) {
		return podFailure{reason: reasonOSLabel, message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return podFailure{reason: reasonOS, message: "Failed to admit pod as the OS field doesn't match node OS"}
	}
	if sc := pod.Spec.SecurityContext; p.withoutGroupsPolicy && sc != nil && sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return podFailure{reason: reasonGroupsPolicy, message: "SupplementalGroupsPolicy=Strict is not supported in this node: use Merge"}
	}
	if why := lacking(want, others, p.allocatable); why.reason != "" {
		return why
	}
	predicate := func(name, message string) podFailure {
		return podFailure{reason: name, message: fmt.Sprintf("Predicate %s failed: %s", name, message)}
	}
	match := placement.Match{Selected: true, Kept: true}
	if p.node != nil {
		match = placement.NewNodeMatcher(&pod.Spec).Match(withoutLoss(p.node))
	}
	switch {
	case !match.Selected:
		return predicate(reasonAffinity, "node(s) didn't match Pod's node affinity/selector")
	case slices.ContainsFunc(want.ports, func(w placement.HostPort) bool { return slices.ContainsFunc(others.ports, w.Clashes) }):
		return predicate(reasonPorts, "node(s) didn't have free ports for the requested pod ports")
	case !match.Kept:
		return predicate(reasonTaint, "node(s) had taints that the pod didn't tolerate")
	}
	return podFailure{}
}

// lacking names the first resource that a pod asks more of than there is. Resources that the node doesn't know are somebody else's to
// count, as upstream has it.
func lacking(want, others holding, allocatable corev1.ResourceList) podFailure {
	type row struct {
		name            corev1.ResourceName
		want, used, all int64
	}
	rows := []row{
		{corev1.ResourcePods, want.pods, others.pods, allocatable.Pods().Value()},
		{corev1.ResourceCPU, want.cpu, others.cpu, allocatable.Cpu().MilliValue()},
		{corev1.ResourceMemory, want.memory, others.memory, allocatable.Memory().Value()},
		{corev1.ResourceEphemeralStorage, want.ephemeral, others.ephemeral, allocatable.StorageEphemeral().Value()},
	}
	for _, name := range slices.Sorted(maps.Keys(want.extended)) {
		all := allocatable[name]
		rows = append(rows, row{name, want.extended[name], others.extended[name], all.Value()})
	}
	for _, r := range rows {
		if _, known := allocatable[r.name]; known && r.want > 0 && r.want > r.all-r.used {
			return podFailure{
				reason:  outOf + string(r.name),
				message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", r.name, r.want, r.used, r.all),
			}
		}
	}
	return podFailure{}
}

// withoutLoss is the node without the taints of one that is lost: each pod puts up with them for a while, which needs no toleration of its
// own here (docs/parity.md, pod-tolerations).
func withoutLoss(node *pcorev1.Node) *pcorev1.Node {
	out := *node
	out.Spec.Taints = nil
	for _, t := range node.Spec.Taints {
		if t.Key != corev1.TaintNodeNotReady && t.Key != corev1.TaintNodeUnreachable {
			out.Spec.Taints = append(out.Spec.Taints, t)
		}
	}
	return &out
}
