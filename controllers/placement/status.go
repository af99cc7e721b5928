// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

const (
	// unschedulableReason of PodScheduled: the pod fits on no node. Upstream's.
	unschedulableReason = corev1.PodReasonUnschedulable
	// gatedReason of PodScheduled: the pod has scheduling gates. Upstream's, like its message.
	gatedReason  = corev1.PodReasonSchedulingGated
	gatedMessage = "Scheduling is blocked due to non-empty scheduling gates"
)

// waitingStatus is the status of a pod that waits for a node, and whether it differs from what the pod has.
func waitingStatus(pod *pcorev1.Pod, reason, message string, now time.Time) (pcorev1.PodStatus, bool) {
	status := *pod.Status.DeepCopy()
	status.ObservedGeneration = pod.Generation
	status.Phase = corev1.PodPending
	status.Conditions = condition.Pod.Set(status.Conditions, condition.Condition{
		Type: string(corev1.PodScheduled), Status: corev1.ConditionFalse, Reason: reason, Message: message,
	}, now)
	shown := string(corev1.PodPending)
	if reason == gatedReason {
		shown = reason
	}
	status.Columns = pcorev1.Columns{
		"status": shown, "ready": fmt.Sprintf("0/%d", len(pod.Spec.Containers)), "restarts": "0",
	}
	return status, !equality.Semantic.DeepEqual(pod.Status, status)
}
