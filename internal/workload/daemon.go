// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Taints that every daemon pod tolerates, so that it neither leaves a node in trouble nor stays away from it. Upstream's list
// (k8s.io/kubernetes pkg/controller/daemon/util, AddOrUpdateDaemonPodTolerations).
var (
	daemonTolerations = []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodePIDPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	}
	hostNetworkToleration = corev1.Toleration{
		Key: corev1.TaintNodeNetworkUnavailable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule,
	}
)

// WithDaemonTolerations returns the pod spec with the tolerations of a daemon pod. Only the list of tolerations is new; the rest is
// shared with the spec given, which isn't changed.
func WithDaemonTolerations(spec *pcorev1.PodSpec) *pcorev1.PodSpec {
	out := *spec
	out.Tolerations = slices.Clone(spec.Tolerations)
	for i := range daemonTolerations {
		out.Tolerations = withToleration(out.Tolerations, daemonTolerations[i])
	}
	if spec.HostNetwork {
		out.Tolerations = withToleration(out.Tolerations, hostNetworkToleration)
	}
	return &out
}

// withToleration adds a toleration, or puts it in place of one of the same taint and effect: what would have been put up with for some
// seconds is put up with for good (upstream's AddOrUpdateTolerationInPodSpec).
func withToleration(list []corev1.Toleration, add corev1.Toleration) []corev1.Toleration {
	found := false
	for i := range list { // the list is the caller's own copy
		if list[i].MatchToleration(&add) {
			list[i], found = add, true
		}
	}
	if found {
		return list
	}
	return append(list, add)
}

// PinToNode returns the affinity with the node's name in place of the required terms for nodes, so that placement puts the pod on that
// node and on no other. The terms that go were met by the node when it was chosen. The affinity given isn't changed.
func PinToNode(affinity *corev1.Affinity, node string) *corev1.Affinity {
	var out corev1.Affinity
	if affinity != nil {
		out = *affinity
	}
	var nodes corev1.NodeAffinity
	if out.NodeAffinity != nil {
		nodes = *out.NodeAffinity
	}
	nodes.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
		}},
	}}}
	out.NodeAffinity = &nodes
	return &out
}

// TargetNode is the node that a pod is on or, as long as it isn't placed, the one that PinToNode means it for.
func TargetNode(pod *pcorev1.Pod) (string, bool) {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName, true
	}
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return "", false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		for _, f := range terms[i].MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn {
				if len(f.Values) != 1 {
					return "", false
				}
				return f.Values[0], true
			}
		}
	}
	return "", false
}

// NodePodName is the name of a pod that belongs to one node: the lowest slot of that owner and node that nobody holds. A pod that ended or is
// terminating still holds its name, and two nodes whose names happen to meet pass each other by.
func NodePodName(owner string, uid types.UID, node string, taken map[string]bool) string {
	names := FreeNames(owner, uid+"/"+types.UID(node), 1, taken)
	if len(names) == 0 {
		return "" // 14 million pods of one owner and node
	}
	return names[0]
}
