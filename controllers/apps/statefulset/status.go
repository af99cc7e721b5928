// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Reasons of StatefulSet's conditions, all ours: upstream's StatefulSet has none. The first three are upstream's reasons of events.
const (
	// reasonFailedCreate: the API server refused a pod or a claim.
	reasonFailedCreate = "FailedCreate"
	// reasonFailedUpdate: the API server refused a change of a pod or a claim.
	reasonFailedUpdate = "FailedUpdate"
	// reasonFailedDelete: the API server refused to delete a pod.
	reasonFailedDelete = "FailedDelete"
	// reasonAvailable: all wanted pods are available and of the revision that they should be of.
	reasonAvailable = "Available"
	// reasonProgressing: pods are still being made, deleted or waited for, and nothing is known to be wrong.
	reasonProgressing = "Progressing"
	// reasonClaimEnding: a pod waits for the end of a claim that is being deleted.
	reasonClaimEnding = "ClaimTerminating"
	// reasonClaimUnbound: a pod waits for a claim to be bound.
	reasonClaimUnbound = "ClaimUnbound"
	// reasonClaimsGrowing: the pods are there, and their claims are on the way to the size of the templates.
	reasonClaimsGrowing = "ClaimsGrowing"
	// reasonClaimStuck: a claim can't follow its template.
	reasonClaimStuck = "ClaimCannotGrow"
	// reasonConfigMissing: with rolloutOn: Config, a ConfigMap or Secret isn't there.
	reasonConfigMissing = "ConfigMissing"
	// reasonInvalid: the spec can't be understood.
	reasonInvalid = "InvalidSpec"
)

// slowClaim is how long a pod may wait for a claim before that is told.
const slowClaim = 10 * time.Second

// failure is a task that the API server refused.
type failure struct {
	reason string
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// outcome is what came of a plan, as far as the status tells about it.
type outcome struct {
	// collided means that another object holds the name of the new revision.
	collided bool
	// blocked says why a pod can't be made now.
	blocked string
	// applyErr is what the plan failed with.
	applyErr error
}

// makeStatus computes the status. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, o outcome) (status pappsv1.StatefulSetStatus, wait time.Duration) {
	status = *s.set.Status.DeepCopy()
	status.ObservedGeneration = s.set.Generation
	status.CurrentRevision, status.UpdateRevision = s.current.name, s.update.name
	if status.CollisionCount == nil {
		status.CollisionCount = new(int32)
	}
	wait = s.count(&status)
	want := int32(s.settings.replicas)
	whole := status.UpdatedReplicas == want && status.ReadyReplicas == want && status.Replicas == want
	if whole && s.set.DeletionTimestamp == nil {
		status.CurrentRevision, status.CurrentReplicas = status.UpdateRevision, status.UpdatedReplicas
	}
	status.Selector = s.selector.String()
	status.Columns = workload.Columns(status.ReadyReplicas, want, &s.set.Spec.Template, status.Selector)
	var growing, stuck string
	status.Claims, growing, stuck = s.claimStatus()

	v, again := s.judge(o, growing, stuck)
	wait = soonest(wait, again)
	if s.set.DeletionTimestamp == nil {
		status.RolloutStatus, again = s.judgeAttempt(v, whole)
		wait = soonest(wait, again)
		if back := status.Rollback; back != nil {
			v = condition.Verdict{State: condition.Failed, Reason: back.Reason, Message: revision.Explain(back)}
		}
	}
	status.Conditions = condition.StatefulSet.SetVerdict(status.Conditions, v, s.now)
	return status, wait
}

// count fills the counters in. Like upstream's, they count pods that end or were deleted until they are gone. wait is when the next
// ready pod becomes available.
func (s *scope) count(status *pappsv1.StatefulSetStatus) (wait time.Duration) {
	status.Replicas, status.ReadyReplicas, status.AvailableReplicas, status.CurrentReplicas, status.UpdatedReplicas = 0, 0, 0, 0, 0
	for _, pod := range s.pods {
		status.Replicas++
		if isReady(pod) {
			status.ReadyReplicas++
			available, left := workload.Availability(pod, time.Duration(s.settings.minReadySeconds)*time.Second, s.now)
			if available {
				status.AvailableReplicas++
			}
			wait = soonest(wait, left)
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		if revisionOf(pod) == s.current.name {
			status.CurrentReplicas++
		}
		if revisionOf(pod) == s.update.name {
			status.UpdatedReplicas++
		}
	}
	return wait
}

// judge says in one sentence how far the set is. wait is when a pod that is slow to start becomes a problem.
func (s *scope) judge(o outcome, growing, stuck string) (v condition.Verdict, wait time.Duration) {
	want := s.settings.replicas
	b := layOut(s)
	up, updated := b.progress()
	v = condition.Verdict{State: condition.InProgress, Reason: reasonProgressing, Message: fmt.Sprintf("%d of %d pods are available.", up, want)}
	var refused *failure
	if errors.As(o.applyErr, &refused) && !apierrors.IsConflict(refused) {
		v.Reason, v.Message = refused.reason, refused.Error()
		return v, 0
	}
	switch {
	case s.pinned.Missing != nil:
		v.Reason, v.Message = reasonConfigMissing, s.pinned.Missing.Error()+"."
	case o.blocked != "":
		v.Reason, v.Message = reasonClaimEnding, o.blocked
	case up < want:
		problem, again := workload.FirstProblem(s.pods, s.now)
		if wait = again; problem != nil {
			v.Reason, v.Message = problem.Reason, problem.Message
			break
		}
		message, again := s.unbound()
		if wait = soonest(wait, again); message != "" {
			v.Reason, v.Message = reasonClaimUnbound, message
		}
	case updated < want:
		v.Message = fmt.Sprintf("%d of %d pods are of revision %s or may stay as they are.", updated, want, s.update.name)
	case len(b.condemned) > 0:
		v.Message = fmt.Sprintf("%d pods are still to go.", len(b.condemned))
	case stuck != "":
		v.State, v.Reason, v.Message = condition.Failed, reasonClaimStuck, stuck
	case growing != "":
		v.Reason, v.Message = reasonClaimsGrowing, growing
	default:
		v.State, v.Reason = condition.Done, reasonAvailable
	}
	return v, wait
}

// progress counts the wanted pods that are up, and those that are of the revision that they should be of.
func (b *board) progress() (up, updated int) {
	for i := range b.slots {
		sl := &b.slots[i]
		if !sl.up(b.scope) {
			continue
		}
		up++
		if !b.isOutdated(sl.pod, sl.ordinal) {
			updated++
		}
	}
	return up, updated
}

// isOutdated says whether the update is yet to replace a pod. Pods below the partition may be of any revision.
func (s *scope) isOutdated(pod *pcorev1.Pod, ordinal int) bool {
	return s.settings.rolling && ordinal >= s.settings.updateFrom && revisionOf(pod) != s.update.name
}

// unbound finds a pod that has waited long for a claim. wait is when the next one will have.
func (s *scope) unbound() (message string, wait time.Duration) {
	for _, pod := range s.pods {
		if pod.DeletionTimestamp != nil || workload.IsTerminal(pod) || workload.IsReady(pod) {
			continue
		}
		for i := range s.set.Spec.VolumeClaimTemplates {
			claim := s.claims[s.set.Spec.VolumeClaimTemplates[i].Name+"-"+pod.Name]
			if claim == nil || claim.Status.Phase == corev1.ClaimBound {
				continue
			}
			if left := pod.CreationTimestamp.Add(slowClaim).Sub(s.now); left > 0 {
				wait = soonest(wait, left)
			} else if message == "" {
				message = fmt.Sprintf("Pod %s waits for claim %s, which isn't bound.", pod.Name, claim.Name)
			}
		}
	}
	return message, wait
}

// judgeAttempt says what the status is to remember of this look for onFailure. An update that has reached its partition, and one that is
// left to the user, waits for the user and can't fail.
func (s *scope) judgeAttempt(v condition.Verdict, whole bool) (pappsv1.RolloutStatus, time.Duration) {
	sample := revision.Sample{Revision: s.update.name, Want: int32(s.settings.replicas), Complete: whole}
	b := layOut(s)
	left := false
	for i := range b.slots {
		sl := &b.slots[i]
		fresh := sl.pod != nil && revisionOf(sl.pod) == s.update.name
		switch {
		case fresh:
			sample.Updated++
		case sl.pod != nil:
			sample.Old++
		}
		if fresh && sl.up(s) {
			sample.Available++
		} else if sl.ordinal >= s.settings.updateFrom {
			left = true
		}
	}
	if v.Reason != reasonProgressing {
		sample.Reason, sample.Message = v.Reason, v.Message
	}
	attempt := s.attempt
	attempt.Paused = !s.settings.rolling || !left || s.pinned.Missing != nil
	return attempt.Judge(sample, s.now)
}

// collidedStatus is the status after another object was found to hold the name of the new revision.
func collidedStatus(s *scope) pappsv1.StatefulSetStatus {
	status := *s.set.Status.DeepCopy()
	count := int32(1)
	if status.CollisionCount != nil {
		count += *status.CollisionCount
	}
	status.CollisionCount = &count
	return status
}

// missingStatus tells that the first revision waits for config.
func missingStatus(s *scope) pappsv1.StatefulSetStatus {
	status := *s.set.Status.DeepCopy()
	status.ObservedGeneration = s.set.Generation
	v := condition.Verdict{State: condition.InProgress, Reason: reasonConfigMissing, Message: s.pinned.Missing.Error() + "."}
	status.Conditions = condition.StatefulSet.SetVerdict(status.Conditions, v, s.now)
	return status
}

// invalidStatus tells that the spec can't be understood.
func invalidStatus(s *scope, err error) pappsv1.StatefulSetStatus {
	status := *s.set.Status.DeepCopy()
	status.ObservedGeneration = s.set.Generation
	v := condition.Verdict{State: condition.Failed, Reason: reasonInvalid, Message: err.Error()}
	status.Conditions = condition.StatefulSet.SetVerdict(status.Conditions, v, s.now)
	return status
}

// soonest is the earlier of two waits, where 0 means none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || (b > 0 && b < a) {
		return b
	}
	return a
}

// urgency is how soon a change of the status must be written.
type urgency int

const (
	// same means that nothing changed.
	same urgency = iota
	// counting means that only numbers on the way to a final state changed.
	counting
	// now means that somebody may be waiting for this, or that the next look builds on it.
	now
)

// compareStatus says how soon the new status must be written.
func compareStatus(before, after *pappsv1.StatefulSetStatus) urgency {
	if equality.Semantic.DeepEqual(before, after) {
		return same
	}
	if before.ObservedGeneration != after.ObservedGeneration || before.CurrentRevision != after.CurrentRevision ||
		before.UpdateRevision != after.UpdateRevision || !equality.Semantic.DeepEqual(before.CollisionCount, after.CollisionCount) ||
		!equality.Semantic.DeepEqual(before.RolloutStatus, after.RolloutStatus) {
		return now
	}
	for _, kind := range []string{pcorev1.ConditionReady, pcorev1.ConditionStalled} {
		a, _ := condition.StatefulSet.Get(before.Conditions, kind)
		b, _ := condition.StatefulSet.Get(after.Conditions, kind)
		if a.Status != b.Status {
			return now
		}
	}
	return counting
}
