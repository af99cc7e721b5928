// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Reasons of ReplicaSet's conditions.
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
func makeStatus(s *scope, applyErr error) (status pappsv1.ReplicaSetStatus, wait time.Duration) {
	counts := workload.Count(s.pods, s.rs.Spec.Template.Labels, s.rs.Spec.MinReadySeconds, s.now)
	status = *s.rs.Status.DeepCopy()
	status.ObservedGeneration = s.rs.Generation
	status.Replicas = counts.Replicas
	status.FullyLabeledReplicas = counts.FullyLabeled
	status.ReadyReplicas = counts.Ready
	status.AvailableReplicas = counts.Available
	status.TerminatingReplicas = &counts.Terminating
	status.Selector = s.selector.String()
	status.Columns = workload.Columns(counts.Ready, s.want(), &s.rs.Spec.Template, status.Selector)

	status.Conditions = failure(s, counts, status.Conditions, applyErr)
	verdict, again := judge(s, counts, applyErr)
	status.Conditions = condition.ReplicaSet.SetVerdict(status.Conditions, verdict, s.now)
	wait = counts.NextAvailable
	if again > 0 {
		wait = soonest(wait, again)
	}
	return status, wait
}

// failure keeps the condition ReplicaFailure, which stands only while the last attempt to make or delete pods failed.
func failure(s *scope, counts workload.Counts, list []appsv1.ReplicaSetCondition, applyErr error) []appsv1.ReplicaSetCondition {
	if applyErr == nil {
		return condition.ReplicaSet.Remove(list, string(appsv1.ReplicaSetReplicaFailure))
	}
	reason := reasonFailedCreate
	if counts.Replicas > s.want() {
		reason = reasonFailedDelete
	}
	return condition.ReplicaSet.SetReason(list, condition.Condition{
		Type: string(appsv1.ReplicaSetReplicaFailure), Status: corev1.ConditionTrue, Reason: reason, Message: applyErr.Error(),
	}, s.now)
}

// judge says in one sentence how far the ReplicaSet is. wait is when a pod that is slow to start becomes a problem.
func judge(s *scope, counts workload.Counts, applyErr error) (v condition.Verdict, wait time.Duration) {
	want := s.want()
	if applyErr != nil {
		if c, ok := condition.ReplicaSet.Get(failure(s, counts, nil, applyErr), string(appsv1.ReplicaSetReplicaFailure)); ok {
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
func compareStatus(before, after *pappsv1.ReplicaSetStatus) urgency {
	if equality.Semantic.DeepEqual(before, after) {
		return same
	}
	if before.ObservedGeneration != after.ObservedGeneration {
		return now
	}
	for _, kind := range []string{pcorev1.ConditionReady, pcorev1.ConditionStalled, string(appsv1.ReplicaSetReplicaFailure)} {
		a, _ := condition.ReplicaSet.Get(before.Conditions, kind)
		b, _ := condition.ReplicaSet.Get(after.Conditions, kind)
		if a.Status != b.Status {
			return now
		}
	}
	return counting
}
