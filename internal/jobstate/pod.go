// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package jobstate

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// NodeFinalizer is what placement puts on a bound pod, and what its node's agent takes away when no process of the pod is left
// (docs/adr/0030). A deleted pod without it runs nowhere any more.
const NodeFinalizer = "pinnace.dev/node"

// NoIndex is what Index returns for a pod that has none.
const NoIndex = -1

// Index is the completion index of a pod, from the annotation that its Job gave it.
func Index(pod *pcorev1.Pod) int {
	i, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || i < 0 {
		return NoIndex
	}
	return i
}

// IsTracked says whether the pod carries the Job's finalizer, that is, whether its end hasn't been written down yet.
func IsTracked(pod *pcorev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// IsFailed says whether the pod counts as failed: it failed, or it was deleted before it succeeded. With onlyEnded (the replacement
// policy Failed) a deleted pod counts once none of its processes is left. Upstream waits for the phase Failed there; Pinnace has
// pods that never reach it: those that were never placed, and those whose node is gone.
func IsFailed(pod *pcorev1.Pod, onlyEnded bool) bool {
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		return true
	case pod.Status.Phase == corev1.PodSucceeded || pod.DeletionTimestamp == nil:
		return false
	}
	return !onlyEnded || !IsEnding(pod)
}

// IsEnding says whether the pod was deleted and may still run.
func IsEnding(pod *pcorev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded &&
		slices.Contains(pod.Finalizers, NodeFinalizer)
}

// IndexFailures is how often pods of this pod's index had failed when it was made; ignored are the failures on top of these that a
// failure policy ignored.
func IndexFailures(pod *pcorev1.Pod) (counted, ignored int32) {
	return annotatedCount(pod, batchv1.JobIndexFailureCountAnnotation), annotatedCount(pod, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

func annotatedCount(pod *pcorev1.Pod, key string) int32 {
	n, err := strconv.Atoi(pod.Annotations[key])
	if err != nil || n < 0 || n > math.MaxInt32 {
		return 0
	}
	return int32(n)
}

// Restarts is how often the containers of a pod were restarted, all together.
func Restarts(pod *pcorev1.Pod) int32 {
	n := int32(0)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			n += list[i].RestartCount
		}
	}
	return n
}

// FinishedAt is when the pod ended: when the last of its main containers and sidecars did, else when it ceased to be ready, else when
// it was deleted, else when it was made (upstream's getFinishedTime).
func FinishedAt(pod *pcorev1.Pod) time.Time {
	if t := lastExit(pod); !t.IsZero() {
		return t
	}
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Time
		}
	}
	if pod.DeletionTimestamp != nil {
		grace := time.Duration(0)
		if pod.DeletionGracePeriodSeconds != nil {
			grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
		}
		return pod.DeletionTimestamp.Add(-grace)
	}
	return pod.CreationTimestamp.Time
}

// lastExit is when the last container ended, zero as long as one hasn't.
func lastExit(pod *pcorev1.Pod) time.Time {
	sidecar := map[string]bool{}
	for i := range pod.Spec.InitContainers {
		if p := pod.Spec.InitContainers[i].RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			sidecar[pod.Spec.InitContainers[i].Name] = true
		}
	}
	var last time.Time
	for i := range pod.Status.ContainerStatuses {
		t := pod.Status.ContainerStatuses[i].State.Terminated
		if t == nil || t.FinishedAt.IsZero() {
			return time.Time{}
		}
		last = later(last, t.FinishedAt.Time)
	}
	for i := range pod.Status.InitContainerStatuses {
		if !sidecar[pod.Status.InitContainerStatuses[i].Name] {
			continue
		}
		t := pod.Status.InitContainerStatuses[i].State.Terminated
		if t == nil || t.FinishedAt.IsZero() {
			return time.Time{}
		}
		last = later(last, t.FinishedAt.Time)
	}
	return last
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Why says in a few words how a failed pod failed, for a person to read.
func Why(pod *pcorev1.Pod) string {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if t := list[i].State.Terminated; t != nil && t.ExitCode != 0 {
				out := fmt.Sprintf("container %s of pod %s ended with exit code %d", list[i].Name, pod.Name, t.ExitCode)
				if t.Reason != "" && t.Reason != "Error" {
					out += " (" + t.Reason + ")"
				}
				return out
			}
		}
	}
	switch {
	case pod.Status.Reason != "" && pod.Status.Message != "":
		return fmt.Sprintf("pod %s failed: %s: %s", pod.Name, pod.Status.Reason, pod.Status.Message)
	case pod.Status.Reason != "":
		return fmt.Sprintf("pod %s failed: %s", pod.Name, pod.Status.Reason)
	case pod.DeletionTimestamp != nil:
		return fmt.Sprintf("pod %s was deleted", pod.Name)
	}
	return fmt.Sprintf("pod %s failed", pod.Name)
}
