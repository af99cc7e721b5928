// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Reasons of Deployment's conditions; upstream's, unless said otherwise (k8s.io/kubernetes pkg/controller/deployment/util).
const (
	// reasonCreated of Progressing: the ReplicaSet of a new revision was made.
	reasonCreated = "NewReplicaSetCreated"
	// reasonFound of Progressing: the ReplicaSet of the revision was there already.
	reasonFound = "FoundNewReplicaSet"
	// reasonUpdated of Progressing: pods were made, became ready or available, or went.
	reasonUpdated = "ReplicaSetUpdated"
	// reasonCreateError of Progressing: the ReplicaSet of a new revision couldn't be made.
	reasonCreateError = "ReplicaSetCreateError"
	// reasonComplete of Progressing: the rollout is done.
	reasonComplete = "NewReplicaSetAvailable"
	// reasonTimedOut of Progressing: nothing moved for progressDeadlineSeconds.
	reasonTimedOut = revision.ReasonTimedOut
	// reasonConfigMissing of Progressing and Ready: with rolloutOn: Config, a ConfigMap or Secret isn't there. Ours.
	reasonConfigMissing = "ConfigMissing"
	// reasonPaused of Progressing: the user paused the rollout.
	reasonPaused = "DeploymentPaused"
	// reasonResumed of Progressing: the user resumed the rollout.
	reasonResumed = "DeploymentResumed"
	// reasonAvailable of Available: enough pods are available.
	reasonAvailable = "MinimumReplicasAvailable"
	// reasonUnavailable of Available: too few pods are available.
	reasonUnavailable = "MinimumReplicasUnavailable"
	// reasonInvalid of Stalled: the spec can't be understood. Ours.
	reasonInvalid = "InvalidSpec"
	// reasonProgressing of Ready and Reconciling: pods are being replaced, and nothing is known to be wrong. Ours.
	reasonProgressing = "Progressing"
)

// outcome is what came of a plan, as far as the status tells about it.
type outcome struct {
	// replicaSets are the Deployment's own, as they are after the plan.
	replicaSets []*pappsv1.ReplicaSet
	// created is the ReplicaSet that was made for a new revision.
	created *pappsv1.ReplicaSet
	// createErr is why none could be made.
	createErr error
	// collided means that another object holds the name of the new ReplicaSet.
	collided bool
	// estimate says whether progress is judged.
	estimate bool
}

// makeStatus computes the status. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, o outcome) (status pappsv1.DeploymentStatus, wait time.Duration) {
	newest, all := split(s, o.replicaSets)
	old := &s.deployment.Status
	status = count(s, newest, all)
	status.CollisionCount = old.CollisionCount
	if o.collided {
		status.CollisionCount = new(int32)
		if old.CollisionCount != nil {
			*status.CollisionCount = *old.CollisionCount
		}
		*status.CollisionCount++
	}
	status.Conditions = old.DeepCopy().Conditions
	status.Conditions = available(s, &status)
	status.Conditions = pausing(s, status.Conditions)
	switch {
	case o.createErr != nil && s.settings.deadline > 0:
		status.Conditions = progressing(status.Conditions, corev1.ConditionFalse, reasonCreateError, o.createErr.Error(), s.now)
	case s.pinned.Missing != nil && s.target.rollback == nil && s.settings.deadline > 0:
		status.Conditions = progressing(status.Conditions, corev1.ConditionFalse, reasonConfigMissing, missing(s), s.now)
	default:
		status.Conditions = started(s, o, newest, status.Conditions)
	}
	if o.estimate && o.createErr == nil {
		if !s.target.foreign {
			status.Conditions, wait = estimate(s, o, newest, &status)
		}
		status.Conditions = replicaFailure(status.Conditions, newest, all, s.now)
	}
	var again time.Duration
	if status.RolloutStatus, again = s.target.attempt.Judge(makeSample(s, &status, newest, all), s.now); again > 0 && (wait == 0 || again < wait) {
		wait = again
	}
	if status.Rollback != nil && s.settings.deadline > 0 {
		status.Conditions = progressing(status.Conditions, corev1.ConditionFalse, reasonTimedOut, revision.Explain(status.Rollback), s.now)
	}
	status.Conditions = condition.Deployment.SetVerdict(status.Conditions, judge(s, &status, newest, all, o.createErr), s.now)
	return status, wait
}

// makeSample says how far the rollout is, for the extension onFailure.
func makeSample(s *scope, status *pappsv1.DeploymentStatus, newest *pappsv1.ReplicaSet, all []*pappsv1.ReplicaSet) revision.Sample {
	out := revision.Sample{Want: s.settings.replicas}
	if newest == nil {
		return out
	}
	out.Revision, out.Updated, out.Available = newest.Name, newest.Status.Replicas, newest.Status.AvailableReplicas
	out.Old = status.Replicas - out.Updated
	out.Complete = complete(s.deployment, &s.settings, status) && settled(newest, all, s.settings.replicas)
	if problem, ok := firstProblem(newest, nil); ok {
		out.Reason, out.Message = problem.Reason, problem.Message
	}
	return out
}

// atRest says whether nothing is left to do.
func atRest(s *scope, o outcome) bool {
	newest, all := split(s, o.replicaSets)
	return makeSample(s, s.status, newest, all).Complete
}

// split finds the ReplicaSet of the template that is rolled out.
func split(s *scope, all []*pappsv1.ReplicaSet) (*pappsv1.ReplicaSet, []*pappsv1.ReplicaSet) {
	after := *s
	after.replicaSets = all
	b := layOut(&after)
	if b.newest == nil {
		return nil, all
	}
	return b.newest.rs, all
}

// count sums the ReplicaSets' counters up.
func count(s *scope, newest *pappsv1.ReplicaSet, all []*pappsv1.ReplicaSet) pappsv1.DeploymentStatus {
	var status pappsv1.DeploymentStatus
	status.ObservedGeneration = s.deployment.Generation
	var wanted, terminating int32
	known := true
	for _, rs := range all {
		wanted += (&set{rs: rs}).replicas()
		status.Replicas += rs.Status.Replicas
		status.ReadyReplicas += rs.Status.ReadyReplicas
		status.AvailableReplicas += rs.Status.AvailableReplicas
		switch {
		case rs.Status.TerminatingReplicas != nil:
			terminating += *rs.Status.TerminatingReplicas
		case rs.Status.ObservedGeneration > 0:
			known = false
		}
	}
	if r := s.target.rollback; r != nil {
		// The spec's own template is the one that failed; the pods that run instead aren't what it asks for.
		newest = nil
		for _, rs := range all {
			if rs.Name == r.FailedRevision {
				newest = rs
			}
		}
	}
	if newest != nil {
		status.UpdatedReplicas = newest.Status.Replicas
	}
	status.UnavailableReplicas = max(0, wanted-status.AvailableReplicas)
	if known {
		status.TerminatingReplicas = &terminating
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.deployment.Spec.Selector); err == nil {
		status.Selector = selector.String()
	}
	status.Columns = workload.Columns(status.ReadyReplicas, s.settings.replicas, &s.deployment.Spec.Template, status.Selector)
	return status
}

// complete says whether all wanted pods are of the newest revision and available, and no other is left.
func complete(d *pappsv1.Deployment, s *settings, status *pappsv1.DeploymentStatus) bool {
	return status.UpdatedReplicas == s.replicas && status.Replicas == s.replicas && status.AvailableReplicas == s.replicas &&
		status.ObservedGeneration >= d.Generation
}

// settled says whether the ReplicaSets are sized as they should be in the end, and their status describes that. Without it a Deployment
// would look complete for a moment when its template goes there and back, before anything has moved.
func settled(newest *pappsv1.ReplicaSet, all []*pappsv1.ReplicaSet, want int32) bool {
	for _, rs := range all {
		size := int32(0)
		if newest != nil && rs.UID == newest.UID {
			size = want
		}
		if (&set{rs: rs}).replicas() != size || rs.Generation > rs.Status.ObservedGeneration {
			return false
		}
	}
	return newest != nil
}

func available(s *scope, status *pappsv1.DeploymentStatus) []appsv1.DeploymentCondition {
	c := condition.Condition{
		Type: string(appsv1.DeploymentAvailable), Status: corev1.ConditionTrue, Reason: reasonAvailable,
		Message: "Deployment has minimum availability.",
	}
	least := s.settings.replicas
	if s.settings.rolling {
		least = s.settings.least()
	}
	if status.AvailableReplicas < least {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reasonUnavailable, "Deployment does not have minimum availability."
	}
	return condition.Deployment.SetReason(status.Conditions, c, s.now)
}

// progressing sets the condition Progressing, keeping it when its status and reason are the same.
func progressing(list []appsv1.DeploymentCondition, status corev1.ConditionStatus, reason, message string, now time.Time) []appsv1.DeploymentCondition {
	return condition.Deployment.SetReason(list, condition.Condition{
		Type: string(appsv1.DeploymentProgressing), Status: status, Reason: reason, Message: message,
	}, now)
}

func progress(list []appsv1.DeploymentCondition) (condition.Condition, bool) {
	return condition.Deployment.Get(list, string(appsv1.DeploymentProgressing))
}

// pausing notes a pause and its end, so that the time of a pause doesn't count against the deadline. A rollout that has
// already missed its deadline keeps saying so.
func pausing(s *scope, list []appsv1.DeploymentCondition) []appsv1.DeploymentCondition {
	c, ok := progress(list)
	switch {
	case s.settings.deadline == 0 || s.deployment.DeletionTimestamp != nil || (ok && c.Reason == reasonTimedOut):
		return list
	case s.settings.paused && c.Reason != reasonPaused:
		return progressing(list, corev1.ConditionUnknown, reasonPaused, "Deployment is paused", s.now)
	case !s.settings.paused && c.Reason == reasonPaused:
		return progressing(list, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed", s.now)
	}
	return list
}

// started notes the ReplicaSet that a rollout works on.
func started(s *scope, o outcome, newest *pappsv1.ReplicaSet, list []appsv1.DeploymentCondition) []appsv1.DeploymentCondition {
	if s.settings.deadline == 0 {
		return list
	}
	if o.created != nil {
		return progressing(list, corev1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", o.created.Name), s.now)
	}
	c, ok := progress(list)
	// What an earlier try or a lack of config left behind isn't about this one.
	stale := c.Reason == reasonConfigMissing || (s.deployment.Status.Rollback != nil && s.target.rollback == nil)
	if (!ok || stale) && newest != nil {
		return progressing(list, corev1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", newest.Name), s.now)
	}
	return list
}

// estimate judges the progress of a rollout. wait is when the deadline should be looked at again.
func estimate(s *scope, o outcome, newest *pappsv1.ReplicaSet, status *pappsv1.DeploymentStatus) (list []appsv1.DeploymentCondition, wait time.Duration) {
	list = status.Conditions
	if s.settings.deadline == 0 {
		return condition.Deployment.Remove(list, string(appsv1.DeploymentProgressing)), 0
	}
	before, had := progress(s.deployment.Status.Conditions)
	if status.Replicas == status.UpdatedReplicas && had && before.Reason == reasonComplete {
		return list, 0 // no rollout is under way; a pod that fails now is none of its business
	}
	subject := fmt.Sprintf("Deployment %q", s.deployment.Name)
	if newest != nil {
		subject = fmt.Sprintf("ReplicaSet %q", newest.Name)
	}
	present, ok := progress(list)
	switch {
	case complete(s.deployment, &s.settings, status) && settled(newest, o.replicaSets, s.settings.replicas):
		return progressing(list, corev1.ConditionTrue, reasonComplete, subject+" has successfully progressed.", s.now), 0
	case moved(&s.deployment.Status, status):
		return refresh(list, subject+" is progressing.", s.now), s.settings.deadline + time.Second
	case ok && present.Reason != reasonComplete && (present.Reason == reasonTimedOut || !s.now.Before(present.LastUpdateTime.Add(s.settings.deadline).Add(time.Second))):
		return progressing(list, corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing.", s.now), 0
	case ok && present.Reason != reasonComplete:
		// A second more, because times are stored in whole seconds.
		return list, max(time.Second, present.LastUpdateTime.Add(s.settings.deadline).Add(time.Second).Sub(s.now))
	}
	return list, 0
}

// moved says whether there was progress between two states: more new pods, fewer old ones, more ready, more available.
func moved(before, after *pappsv1.DeploymentStatus) bool {
	return after.UpdatedReplicas > before.UpdatedReplicas ||
		after.Replicas-after.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		after.ReadyReplicas > before.ReadyReplicas || after.AvailableReplicas > before.AvailableReplicas
}

// refresh notes progress: unlike any other condition, it renews the update time even when nothing else changes.
func refresh(list []appsv1.DeploymentCondition, message string, now time.Time) []appsv1.DeploymentCondition {
	before, had := progress(list)
	list = condition.Deployment.Remove(list, string(appsv1.DeploymentProgressing))
	c := condition.Condition{
		Type: string(appsv1.DeploymentProgressing), Status: corev1.ConditionTrue, Reason: reasonUpdated, Message: message,
		LastUpdateTime: condition.Stamp(now), LastTransitionTime: condition.Stamp(now),
	}
	if had && before.Status == corev1.ConditionTrue {
		c.LastTransitionTime = before.LastTransitionTime
	}
	return append(list, condition.Deployment.To(c))
}

// replicaFailure passes on that a ReplicaSet can't make or delete pods, the newest one's word first.
func replicaFailure(list []appsv1.DeploymentCondition, newest *pappsv1.ReplicaSet, all []*pappsv1.ReplicaSet, now time.Time) []appsv1.DeploymentCondition {
	kind := string(appsv1.ReplicaSetReplicaFailure)
	if newest != nil {
		all = append([]*pappsv1.ReplicaSet{newest}, all...)
	}
	for _, rs := range all {
		if c, ok := condition.ReplicaSet.Get(rs.Status.Conditions, kind); ok {
			return condition.Deployment.SetReason(list, c, now)
		}
	}
	return condition.Deployment.Remove(list, kind)
}

// judge says in one sentence how far the Deployment is and, when it isn't ready, why.
func judge(s *scope, status *pappsv1.DeploymentStatus, newest *pappsv1.ReplicaSet, all []*pappsv1.ReplicaSet, createErr error) condition.Verdict {
	done := complete(s.deployment, &s.settings, status) && settled(newest, all, s.settings.replicas)
	counted := fmt.Sprintf("%d of %d pods are updated and available.", min(status.UpdatedReplicas, status.AvailableReplicas), s.settings.replicas)
	v := condition.Verdict{State: condition.InProgress, Reason: reasonProgressing, Message: counted}
	if problem, ok := firstProblem(newest, all); ok && !done {
		v.Reason, v.Message = problem.Reason, problem.Message
	}
	c, _ := progress(status.Conditions)
	switch {
	case status.Rollback != nil:
		return condition.Verdict{State: condition.Failed, Reason: status.Rollback.Reason, Message: revision.Explain(status.Rollback)}
	case s.pinned.Missing != nil:
		v.Reason, v.Message = reasonConfigMissing, missing(s)
	case createErr != nil:
		v.Reason, v.Message = reasonCreateError, createErr.Error()
	case done:
		return condition.Verdict{State: condition.Done, Reason: reasonComplete, Message: counted}
	case s.settings.paused:
		v.State, v.Reason, v.Message = condition.Waiting, reasonPaused, "The rollout is paused. "+v.Message
	case c.Reason == reasonTimedOut:
		v.State, v.Reason = condition.Failed, reasonTimedOut
		v.Message = fmt.Sprintf("The rollout made no progress for %s. %s", s.settings.deadline, v.Message)
	}
	return v
}

// missing says in one sentence which config isn't there.
func missing(s *scope) string { return s.pinned.Missing.Error() + "." }

// firstProblem is what the ReplicaSets say about their first failing pod, the newest one's word first.
func firstProblem(newest *pappsv1.ReplicaSet, all []*pappsv1.ReplicaSet) (condition.Condition, bool) {
	if newest != nil {
		all = append([]*pappsv1.ReplicaSet{newest}, all...)
	}
	for _, rs := range all {
		c, ok := condition.ReplicaSet.Get(rs.Status.Conditions, pcorev1.ConditionReady)
		if ok && c.Status == corev1.ConditionFalse && c.Reason != reasonProgressing {
			return c, true
		}
	}
	return condition.Condition{}, false
}

// invalidStatus is the status of a Deployment whose spec can't be understood: nothing will move until the user changes it.
func invalidStatus(s *scope, reason error) pappsv1.DeploymentStatus {
	status := *s.deployment.Status.DeepCopy()
	status.ObservedGeneration = s.deployment.Generation
	status.Conditions = condition.Deployment.SetVerdict(status.Conditions, condition.Verdict{
		State: condition.Failed, Reason: reasonInvalid, Message: reason.Error(),
	}, s.now)
	return status
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
func compareStatus(before, after *pappsv1.DeploymentStatus) urgency {
	if equality.Semantic.DeepEqual(before, after) {
		return same
	}
	if before.ObservedGeneration != after.ObservedGeneration || before.LastCompleteRevision != after.LastCompleteRevision ||
		!equality.Semantic.DeepEqual(before.CollisionCount, after.CollisionCount) || !equality.Semantic.DeepEqual(before.Rollback, after.Rollback) {
		return now
	}
	kinds := []string{
		pcorev1.ConditionReady, pcorev1.ConditionStalled,
		string(appsv1.DeploymentAvailable), string(appsv1.DeploymentProgressing), string(appsv1.DeploymentReplicaFailure),
	}
	for _, kind := range kinds {
		a, _ := condition.Deployment.Get(before.Conditions, kind)
		b, _ := condition.Deployment.Get(after.Conditions, kind)
		if a.Status != b.Status {
			return now
		}
	}
	return counting
}
