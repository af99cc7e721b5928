// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// IsTerminal says whether the pod has ended for good.
func IsTerminal(pod *pcorev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// IsActive says whether the pod counts as one of its owner's replicas: it has neither ended nor been deleted.
func IsActive(pod *pcorev1.Pod) bool {
	return pod.DeletionTimestamp == nil && !IsTerminal(pod)
}

// IsTerminating says whether the pod was deleted and may still run.
func IsTerminating(pod *pcorev1.Pod) bool {
	return pod.DeletionTimestamp != nil && !IsTerminal(pod)
}

// ReadySince says whether the pod is ready, and since when.
func ReadySince(pod *pcorev1.Pod) (metav1.Time, bool) {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime, c.Status == corev1.ConditionTrue
		}
	}
	return metav1.Time{}, false
}

// IsReady says whether the pod's Ready condition is true.
func IsReady(pod *pcorev1.Pod) bool {
	_, ready := ReadySince(pod)
	return ready
}

// Availability says whether the pod has been ready for minReady; for a pod that is ready but not yet available, wait is
// how long it takes until it is, if nothing happens to it.
func Availability(pod *pcorev1.Pod, minReady time.Duration, now time.Time) (available bool, wait time.Duration) {
	since, ready := ReadySince(pod)
	if !ready {
		return false, 0
	}
	if minReady == 0 {
		return true, 0
	}
	if since.IsZero() {
		return false, minReady
	}
	if left := since.Add(minReady).Sub(now); left > 0 {
		return false, left
	}
	return true, 0
}

// Counts are the numbers that an owner of pods reports. Only pods that neither ended nor were deleted count, except for
// Terminating.
type Counts struct {
	// Replicas is the number of active pods.
	Replicas int32
	// FullyLabeled is how many of them carry all labels of the template.
	FullyLabeled int32
	// Ready is how many of them are ready.
	Ready int32
	// Available is how many of them have been ready for long enough.
	Available int32
	// Terminating is how many pods were deleted and may still run.
	Terminating int32
	// NextAvailable is when the next ready pod becomes available; 0 when there is nothing to wait for.
	NextAvailable time.Duration
}

// Count counts the pods of an owner whose template has those labels.
func Count(pods []*pcorev1.Pod, templateLabels map[string]string, minReadySeconds int32, now time.Time) Counts {
	var c Counts
	minReady := time.Duration(minReadySeconds) * time.Second
	for _, pod := range pods {
		if IsTerminating(pod) {
			c.Terminating++
		}
		if !IsActive(pod) {
			continue
		}
		c.Replicas++
		if hasLabels(pod.Labels, templateLabels) {
			c.FullyLabeled++
		}
		if !IsReady(pod) {
			continue
		}
		c.Ready++
		available, wait := Availability(pod, minReady, now)
		if available {
			c.Available++
		} else if c.NextAvailable == 0 || wait < c.NextAvailable {
			c.NextAvailable = wait
		}
	}
	return c
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// CountByNode adds to count how many active pods each node holds.
func CountByNode(count map[string]int, pods []*pcorev1.Pod) {
	for _, pod := range pods {
		if IsActive(pod) && pod.Spec.NodeName != "" {
			count[pod.Spec.NodeName]++
		}
	}
}
