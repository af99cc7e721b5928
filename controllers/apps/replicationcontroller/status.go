// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicationcontroller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Reasons of ReplicationController's conditions.
const (
	// reasonFailedCreate: pods are missing and the API server refused to make one. Upstream's.
	reasonFailedCreate = "FailedCreate"
	// reasonFailedDelete: there are too many pods and one couldn't be deleted. Upstream's.
	reasonFailedDelete = "FailedDelete"
	// reasonAvailable: as many pods as wanted are available.
	reasonAvailable = "Available"
	// reasonProgressing: pods are still being made, deleted or waited for, and nothing is known to be wrong.
	reasonProgressing = "Progressing"
)

// makeStatus computes the status. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, applyErr error) (status pcorev1.ReplicationControllerStatus, wait time.Duration) {
	template := s.rc.Spec.Template
	if template == nil {
		template = &pcorev1.PodTemplateSpec{}
	}
	counts := workload.Count(s.pods, template.Labels, s.rc.Spec.MinReadySeconds, s.now)
	status = *s.rc.Status.DeepCopy()
	status.ObservedGeneration = s.rc.Generation
	status.Replicas = counts.Replicas
	status.FullyLabeledReplicas = counts.FullyLabeled
	status.ReadyReplicas = counts.Ready
	status.AvailableReplicas = counts.Available
	status.Selector = s.selector.String()
	status.Columns = workload.Columns(counts.Ready, s.want(), template, s.selector.String())

	status.Conditions = failure(s, counts, status.Conditions, applyErr)
	verdict, again := judge(s, counts, applyErr)
	status.Conditions = condition.ReplicationController.SetVerdict(status.Conditions, verdict, s.now)
	wait = counts.NextAvailable
	if again > 0 {
		wait = soonest(wait, again)
	}
	return status, wait
}

// failure keeps the condition ReplicaFailure, which stands only while the last attempt to make or delete pods failed.
func failure(s *scope, counts workload.Counts, list []corev1.ReplicationControllerCondition, applyErr error) []corev1.ReplicationControllerCondition {
	if applyErr == nil {
		return condition.ReplicationController.Remove(list, string(corev1.ReplicationControllerReplicaFailure))
	}
	reason := reasonFailedCreate
	if counts.Replicas > s.want() {
		reason = reasonFailedDelete
	}
	return condition.ReplicationController.SetReason(list, condition.Condition{
		Type: string(corev1.ReplicationControllerReplicaFailure), Status: corev1.ConditionTrue, Reason: reason, Message: applyErr.Error(),
	}, s.now)
}

// judge says in one sentence how far the ReplicationController is. wait is when a pod that is slow to start becomes a problem.
func judge(s *scope, counts workload.Counts, applyErr error) (v condition.Verdict, wait time.Duration) {
	want := s.want()
	if applyErr != nil {
		if c, ok := condition.ReplicationController.Get(failure(s, counts, nil, applyErr), string(corev1.ReplicationControllerReplicaFailure)); ok {
			return condition.Verdict{State: condition.InProgress, Reason: c.Reason, Message: c.Message}, 0
		}
	}
	if counts.Replicas == want && counts.Available == want {
		return condition.Verdict{State: condition.Done, Reason: reasonAvailable, Message: fmt.Sprintf("%d of %d pods are available.", counts.Available, want)}, 0
	}
	v = condition.Verdict{State: condition.InProgress, Reason: reasonProgressing, Message: fmt.Sprintf("%d of %d pods are available.", counts.Available, want)}
	problem, wait := workload.FirstProblem(s.pods, s.now)
	if problem != nil && counts.Ready < want {
		v.Reason, v.Message = problem.Reason, problem.Message
	}
	return v, wait
}

// urgency is how soon a change of the status must be written.
type urgency int

const (
	// same means that nothing changed.
	same urgency = iota
	// counting means that only numbers on the way to a final state changed.
	counting
	// now means that somebody may be waiting for this.
	now
)

// compareStatus says how soon the new status must be written.
func compareStatus(before, after *pcorev1.ReplicationControllerStatus) urgency {
	if equality.Semantic.DeepEqual(before, after) {
		return same
	}
	if before.ObservedGeneration != after.ObservedGeneration {
		return now
	}
	for _, kind := range []string{pcorev1.ConditionReady, pcorev1.ConditionStalled, string(corev1.ReplicationControllerReplicaFailure)} {
		a, _ := condition.ReplicationController.Get(before.Conditions, kind)
		b, _ := condition.ReplicationController.Get(after.Conditions, kind)
		if a.Status != b.Status {
			return now
		}
	}
	return counting
}
