// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

// ConditionReplicaFailure stands at an owner of equal pods while its last try to make or delete one failed. Upstream's.
const ConditionReplicaFailure = "ReplicaFailure"

// Reasons of the conditions of an owner of equal pods.
const (
	// ReasonFailedCreate: pods are missing and the API server refused to make one. Upstream's.
	ReasonFailedCreate = "FailedCreate"
	// ReasonFailedDelete: there are too many pods and one couldn't be deleted. Upstream's.
	ReasonFailedDelete = "FailedDelete"
	// ReasonAvailable: as many pods as wanted are available.
	ReasonAvailable = "Available"
	// ReasonProgressing: pods are still being made, deleted or waited for, and nothing is known to be wrong.
	ReasonProgressing = "Progressing"
)

// ReplicaReport is what an owner of equal pods, a ReplicaSet or ReplicationController, reports in its conditions.
type ReplicaReport struct {
	Pods   []*pcorev1.Pod
	Counts Counts
	// Want is the wanted number of pods.
	Want int32
	// Failure is what the last try to make or delete pods came to; nil when it went well.
	Failure error
	Now     time.Time
}

// failure is the condition ReplicaFailure; only right when there was a failure.
func (r ReplicaReport) failure() condition.Condition {
	reason := ReasonFailedCreate
	if r.Counts.Replicas > r.Want {
		reason = ReasonFailedDelete
	}
	return condition.Condition{Type: ConditionReplicaFailure, Status: corev1.ConditionTrue, Reason: reason, Message: condition.Bound(r.Failure.Error())}
}

// judge says in one sentence how far the owner is. wait is when a pod that is slow to start becomes a problem.
func (r ReplicaReport) judge() (v condition.Verdict, wait time.Duration) {
	if r.Failure != nil {
		c := r.failure()
		return condition.Verdict{State: condition.InProgress, Reason: c.Reason, Message: c.Message}, 0
	}
	message := fmt.Sprintf("%d of %d pods are available.", r.Counts.Available, r.Want)
	if r.Counts.Replicas == r.Want && r.Counts.Available == r.Want {
		return condition.Verdict{State: condition.Done, Reason: ReasonAvailable, Message: message}, 0
	}
	v = condition.Verdict{State: condition.InProgress, Reason: ReasonProgressing, Message: message}
	problem, wait := FirstProblem(r.Pods, r.Now)
	if problem != nil && r.Counts.Ready < r.Want {
		v.Reason, v.Message = problem.Reason, problem.Message
	}
	return v, wait
}

// ReplicaConditions returns the conditions of an owner of equal pods after the report. wait is when time alone changes them; 0 means never.
func ReplicaConditions[C any](codec condition.Codec[C], list []C, r ReplicaReport) (out []C, wait time.Duration) {
	if r.Failure == nil {
		list = codec.Remove(list, ConditionReplicaFailure)
	} else {
		list = codec.SetReason(list, r.failure(), r.Now)
	}
	verdict, again := r.judge()
	return codec.SetVerdict(list, verdict, r.Now), soonest(r.Counts.NextAvailable, again)
}

// soonest returns the shorter of two waits, of which 0 stands for none.
func soonest(a, b time.Duration) time.Duration {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}

// Urgency is how soon a change of a status must be written.
type Urgency int

const (
	// Same means that nothing changed.
	Same Urgency = iota
	// Counting means that only numbers on the way to a final state changed.
	Counting
	// AtOnce means that somebody may be waiting for this.
	AtOnce
)

// ReplicaUrgency says how soon the changed status of an owner of equal pods must be written, by its conditions before and after: at once when
// it became ready, stalled or failing, or stopped being so.
func ReplicaUrgency[C any](codec condition.Codec[C], before, after []C) Urgency {
	for _, kind := range []string{pcorev1.ConditionReady, pcorev1.ConditionStalled, ConditionReplicaFailure} {
		a, _ := codec.Get(before, kind)
		b, _ := codec.Get(after, kind)
		if a.Status != b.Status {
			return AtOnce
		}
	}
	return Counting
}
