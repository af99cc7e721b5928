// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
)

// ReasonTimedOut is the reason of Progressing and Stalled when a rollout made no progress for its deadline; upstream's.
const ReasonTimedOut = "ProgressDeadlineExceeded"

// Intent is a hash of what the user asks for. The caller leaves out what doesn't ask for another try: the size, which an autoscaler
// changes, and the pause; and puts in the template with its config pinned. An error means that spec can't be written as JSON.
func Intent(spec any) (string, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("writing the spec as JSON: %w", err)
	}
	sum := fnv.New64a()
	sum.Write(raw)
	return fmt.Sprintf("%016x", sum.Sum64()), nil
}

// Attempt is one try to roll a revision out, as the extension onFailure sees it (docs/adr/0056): whether it goes on, is complete, or is
// given up for the revision that was complete last. It serves Deployment, StatefulSet and DaemonSet alike.
type Attempt struct {
	// Spec and Status are the object's, the status as it is stored.
	Spec   pappsv1.RolloutSpec
	Status pappsv1.RolloutStatus
	// Generation is the object's metadata.generation.
	Generation int64
	// Intent is what Intent returned; empty while it can't be known, which leaves a rollback in force.
	Intent string
	// Deadline is for how long a rollout may make no progress; 0 means for ever.
	Deadline time.Duration
	// Since is when the controller began to look at its objects. Time before that isn't held against a rollout: while no manager runs, nothing
	// can move.
	Since time.Time
	// Paused stops the clock.
	Paused bool
	// Exists says whether the revision of that name is there to go back to.
	Exists func(name string) bool
}

// Sample is how far a rollout is.
type Sample struct {
	// Revision is the name of the revision that is rolled out; empty while it isn't made.
	Revision string
	// Want is the wanted number of pods.
	Want int32
	// Updated is the number of the revision's pods, Available how many of them are available, Old the number of other pods.
	Updated, Available, Old int32
	// Complete says that the rollout is done.
	Complete bool
	// Reason and Message are those of the revision's first failing pod; empty when none is known to fail.
	Reason, Message string
}

// InForce returns the rollback that holds, nil when the spec's own revision is to be rolled out.
func (a Attempt) InForce() *pappsv1.RollbackStatus {
	r := a.Status.Rollback
	if r == nil || a.Spec.OnFailure != pappsv1.FailureRollback || (a.Intent != "" && a.Intent != r.Intent) || !a.Exists(r.Revision) {
		return nil
	}
	return r
}

// Keeps says whether a revision must be kept whatever the history limit is, because a failure goes back to it.
func (a Attempt) Keeps(name string) bool {
	return a.Spec.OnFailure == pappsv1.FailureRollback && name != "" && (name == a.Status.LastCompleteRevision || (a.Status.Rollback != nil && name == a.Status.Rollback.Revision))
}

// Judge returns what the status is to remember of this look. wait is when to look again: 0 means never, and a rollback that was just
// decided wants the next look at once.
func (a Attempt) Judge(s Sample, now time.Time) (next pappsv1.RolloutStatus, wait time.Duration) {
	next.LastCompleteRevision = a.Status.LastCompleteRevision
	if next.Rollback = a.InForce(); next.Rollback != nil {
		return next, 0
	}
	if s.Complete {
		if s.Want > 0 { // no pod proves nothing
			next.LastCompleteRevision = s.Revision
		}
		return next, 0
	}
	last := next.LastCompleteRevision
	if a.Spec.OnFailure != pappsv1.FailureRollback || a.Paused || a.Deadline <= 0 || s.Revision == "" || last == "" || last == s.Revision || !a.Exists(last) {
		return next, 0
	}
	next.Progress = advance(a.Status.Progress, s, now)
	// A second more, because times are stored in whole seconds.
	from := next.Progress.Time.Time
	if a.Since.After(from) {
		from = a.Since
	}
	if left := from.Add(a.Deadline + time.Second).Sub(now); left > 0 {
		return next, left
	}
	next.Progress = nil
	next.Rollback = &pappsv1.RollbackStatus{
		Generation: a.Generation, Intent: a.Intent, FailedRevision: s.Revision, Revision: last,
		Reason: ReasonTimedOut, Message: fmt.Sprintf("%s made no progress for %s.", s.Revision, a.Deadline), Time: stamp(now),
	}
	if s.Reason != "" {
		next.Rollback.Reason = s.Reason
		next.Rollback.Message = fmt.Sprintf("%s made no progress for %s: %s", s.Revision, a.Deadline, s.Message)
	}
	return next, time.Millisecond
}

// advance raises the marks that a rollout reached, and notes the time when it raised one. Marks rather than the last counts: a container
// that crashes and comes back up is ready now and then, and would else make progress for ever.
func advance(before *pappsv1.RolloutProgress, s Sample, now time.Time) *pappsv1.RolloutProgress {
	if before == nil || before.Revision != s.Revision {
		return &pappsv1.RolloutProgress{Revision: s.Revision, Updated: s.Updated, Available: s.Available, Old: s.Old, Time: stamp(now)}
	}
	p := *before
	// After scaling down, the marks of a larger size must not hide progress.
	p.Updated, p.Available = min(p.Updated, s.Want), min(p.Available, s.Want)
	if s.Updated > p.Updated || s.Available > p.Available || s.Old < p.Old {
		p.Time = stamp(now)
	}
	p.Updated, p.Available, p.Old = max(p.Updated, s.Updated), max(p.Available, s.Available), min(p.Old, s.Old)
	return &p
}

// stamp is now as an API server stores it: whole seconds, UTC.
func stamp(now time.Time) metav1.Time { return metav1.NewTime(now.UTC().Truncate(time.Second)) }

// Explain says in one or two sentences what a rollback means, for the condition Stalled.
func Explain(r *pappsv1.RollbackStatus) string {
	return fmt.Sprintf("Rolled back to %s, because %s A change of the spec tries again.", r.Revision, r.Message)
}
