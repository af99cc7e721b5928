// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Matters says whether a change of a pod can change what the pod's owner does or reports. Being bound to a node, for one, can't.
func Matters(before, after *pcorev1.Pod) bool {
	if (before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) || before.Status.Phase != after.Status.Phase {
		return true
	}
	beforeSince, beforeReady := ReadySince(before)
	afterSince, afterReady := ReadySince(after)
	if beforeReady != afterReady || !beforeSince.Equal(&afterSince) {
		return true
	}
	if !maps.Equal(before.Labels, after.Labels) || !sameController(before, after) {
		return true
	}
	if afterReady {
		return false
	}
	// What keeps the pod from being ready is part of the owner's report.
	return !equality.Semantic.DeepEqual(before.Status.Conditions, after.Status.Conditions) ||
		!equality.Semantic.DeepEqual(before.Status.ContainerStatuses, after.Status.ContainerStatuses) ||
		!equality.Semantic.DeepEqual(before.Status.InitContainerStatuses, after.Status.InitContainerStatuses)
}

func sameController(before, after *pcorev1.Pod) bool {
	a, b := metav1.GetControllerOfNoCopy(before), metav1.GetControllerOfNoCopy(after)
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID
}
