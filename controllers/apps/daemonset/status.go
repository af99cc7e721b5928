// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Reasons of the conditions Ready, Reconciling and Stalled. Upstream's DaemonSet has no conditions.
const (
	// reasonAvailable: every node that should run a pod has an available one, of the newest revision where the set rolls out by itself.
	reasonAvailable = "Available"
	// reasonProgressing: pods are being made, replaced or waited for, and nothing is known to be wrong.
	reasonProgressing = "Progressing"
	// reasonNoNode: no node should run a pod, so nothing is missing.
	reasonNoNode = "NoMatchingNode"
	// reasonFailedCreate: the API server refused to make a pod or a revision.
	reasonFailedCreate = "FailedCreate"
	// reasonFailedDelete: the API server refused to delete a pod or a revision.
	reasonFailedDelete = "FailedDelete"
	// reasonConfigMissing: with rolloutOn: Config, a ConfigMap or Secret isn't there.
	reasonConfigMissing = "ConfigMissing"
	// reasonInvalid: the spec can't be understood.
	reasonInvalid = "InvalidSpec"
)

// outcome is what came of a plan, as far as the status tells about it.
type outcome struct {
	// createErr and deleteErr are why pods couldn't be made or deleted.
	createErr, deleteErr error
	// more means that the next look shouldn't wait.
	more bool
}

func (o outcome) err() error { return errors.Join(o.createErr, o.deleteErr) }

// tally are the numbers of the status, and what they were counted from.
type tally struct {
	desired, current, misscheduled, ready, updated, available int32
	// pods are those of the nodes that should run one: also a new pod that surges beside an old one may be what is wrong.
	pods []*pcorev1.Pod
	// first are the pods that speak for their nodes.
	first []*pcorev1.Pod
	// wait is when the next ready pod becomes available; 0 when there is nothing to wait for.
	wait time.Duration
}

// count counts nodes as upstream does (pkg/controller/daemon, updateDaemonSetStatus): of a node with several pods, the one that was
// placed first and is oldest speaks for the node, a pod that is ending included.
func count(s *scope, places []*place) tally {
	var t tally
	for _, p := range places {
		if !p.exists {
			continue
		}
		if !p.match.MayStart() {
			if len(p.pods) > 0 {
				t.misscheduled++
			}
			continue
		}
		t.desired++
		if len(p.pods) == 0 {
			continue
		}
		t.current++
		t.pods = append(t.pods, p.pods...)
		pod := p.pods[0]
		t.first = append(t.first, pod)
		if workload.IsReady(pod) {
			t.ready++
			available, wait := workload.Availability(pod, s.settings.minReady, s.now)
			if available {
				t.available++
			}
			t.wait = soonest(t.wait, wait)
		}
		if s.isNew(pod) {
			t.updated++
		}
		for _, other := range p.pods[1:] { // its availability moves a rollout on
			_, wait := workload.Availability(other, s.settings.minReady, s.now)
			t.wait = soonest(t.wait, wait)
		}
	}
	return t
}

// complete says whether every node that should run a pod has an available one of the revision that is rolled out, and no other.
func (t *tally) complete() bool {
	return t.current == t.desired && t.updated == t.desired && t.available == t.desired
}

// makeStatus computes the status. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, o outcome) (status pappsv1.DaemonSetStatus, wait time.Duration) {
	t := count(s, s.layOut())
	status = *s.set.Status.DeepCopy()
	status.ObservedGeneration = s.set.Generation
	status.DesiredNumberScheduled = t.desired
	status.CurrentNumberScheduled = t.current
	status.NumberMisscheduled = t.misscheduled
	status.NumberReady = t.ready
	status.UpdatedNumberScheduled = t.updated
	status.NumberAvailable = t.available
	status.NumberUnavailable = t.desired - t.available
	status.Columns = columns(s)
	verdict, again := judge(s, &t, o)
	var retry time.Duration
	status.RolloutStatus, retry = s.attempt.Judge(makeSample(s, &t, verdict), s.now)
	switch back := status.Rollback; {
	case back != nil:
		verdict = condition.Verdict{State: condition.Failed, Reason: back.Reason, Message: revision.Explain(back)}
		if s.elsewhere {
			// The pods that run instead aren't what the spec asks for.
			status.UpdatedNumberScheduled = t.nodesWith(s.history.Named(back.FailedRevision))
		}
	case s.pinned.Missing != nil:
		verdict = condition.Verdict{State: condition.InProgress, Reason: reasonConfigMissing, Message: s.pinned.Missing.Error() + "."}
	}
	status.Conditions = condition.DaemonSet.SetVerdict(status.Conditions, verdict, s.now)
	return status, soonest(soonest(t.wait, again), retry)
}

// nodesWith is the number of nodes whose first pod is of that revision.
func (t *tally) nodesWith(rev *pappsv1.ControllerRevision) int32 {
	var n int32
	for _, pod := range t.first {
		if rev != nil && pod.Labels[revision.PodRevisionLabel] == rev.Labels[revision.PodRevisionLabel] {
			n++
		}
	}
	return n
}

// makeSample says how far the rollout is, for onFailure.
func makeSample(s *scope, t *tally, v condition.Verdict) revision.Sample {
	out := revision.Sample{Revision: s.target.Name, Want: t.desired, Complete: t.complete()}
	for _, pod := range t.pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		switch {
		case !s.isNew(pod):
			out.Old++
			continue
		case s.available(pod):
			out.Available++
		}
		out.Updated++
	}
	if v.Reason != reasonProgressing {
		out.Reason, out.Message = v.Reason, v.Message
	}
	return out
}

func columns(s *scope) pcorev1.Columns {
	out := workload.Columns(0, 0, &s.set.Spec.Template, s.settings.selector.String())
	delete(out, pcorev1.ColumnReady) // kubectl shows DESIRED, CURRENT and READY in its place
	out[pcorev1.ColumnNodeSelector] = labels.FormatLabels(s.set.Spec.Template.Spec.NodeSelector)
	return out
}

// judge says in one sentence how far the set is and, when it isn't ready, why. wait is when a pod that is slow to start becomes a problem.
func judge(s *scope, t *tally, o outcome) (v condition.Verdict, wait time.Duration) {
	done := t.complete()
	counted := fmt.Sprintf("%d of %d pods are updated and available.", min(t.updated, t.available), t.desired)
	if !s.settings.rolling {
		// Pods of older revisions stay until somebody deletes them: that is what the spec asks for.
		done = t.current == t.desired && t.available == t.desired
		counted = fmt.Sprintf("%d of %d pods are available.", t.available, t.desired)
		if old := t.current - t.updated; old > 0 {
			counted += fmt.Sprintf(" %d of an older revision are replaced when they are deleted.", old)
		}
	}
	v = condition.Verdict{State: condition.InProgress, Reason: reasonProgressing, Message: counted}
	switch {
	case o.createErr != nil:
		v.Reason, v.Message = reasonFailedCreate, o.createErr.Error()
	case o.deleteErr != nil:
		v.Reason, v.Message = reasonFailedDelete, o.deleteErr.Error()
	case done && t.desired == 0:
		v.State, v.Reason, v.Message = condition.Done, reasonNoNode, "No node matches, so there is nothing to run."
	case done:
		v.State, v.Reason = condition.Done, reasonAvailable
	default:
		problem, again := workload.FirstProblem(t.pods, s.now)
		if problem != nil {
			v.Reason, v.Message = problem.Reason, problem.Message
		}
		return v, again
	}
	return v, 0
}

// withVerdict is the status as it was, with another verdict and nothing else.
func withVerdict(set *pappsv1.DaemonSet, v condition.Verdict, now time.Time) pappsv1.DaemonSetStatus {
	status := *set.Status.DeepCopy()
	status.Conditions = condition.DaemonSet.SetVerdict(status.Conditions, v, now)
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
func compareStatus(before, after *pappsv1.DaemonSetStatus) urgency {
	if equality.Semantic.DeepEqual(before, after) {
		return same
	}
	if before.ObservedGeneration != after.ObservedGeneration || !equality.Semantic.DeepEqual(before.CollisionCount, after.CollisionCount) ||
		before.LastCompleteRevision != after.LastCompleteRevision || !equality.Semantic.DeepEqual(before.Rollback, after.Rollback) {
		return now
	}
	for _, kind := range []string{pcorev1.ConditionReady, pcorev1.ConditionStalled} {
		a, _ := condition.DaemonSet.Get(before.Conditions, kind)
		b, _ := condition.DaemonSet.Get(after.Conditions, kind)
		if a.Status != b.Status {
			return now
		}
	}
	return counting
}
