// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import corev1 "k8s.io/api/core/v1"

// Priorities of upstream's built-in classes (pkg/apis/scheduling).
const (
	// PriorityClusterCritical is that of system-cluster-critical. Pods from there on are not evicted when a node lacks something.
	PriorityClusterCritical = 2000000000
	// PriorityNodeCritical is that of system-node-critical.
	PriorityNodeCritical = PriorityClusterCritical + 1000
)

// ReasonEvicted is why a pod failed that had to go for its node's sake, or for its own use of local storage; the kubelet's.
const ReasonEvicted = "Evicted"

// Priority is the pod's, which is spec.priority or, where only their name is known, that of a built-in class.
func Priority(spec *corev1.PodSpec) int32 {
	switch {
	case spec.Priority != nil:
		return *spec.Priority
	case spec.PriorityClassName == "system-cluster-critical":
		return PriorityClusterCritical
	case spec.PriorityClassName == "system-node-critical":
		return PriorityNodeCritical
	}
	return 0
}
