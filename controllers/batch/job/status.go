// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/duration"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Reasons of the conditions Ready, Reconciling and Stalled, beside those of Complete and Failed, which are upstream's.
const (
	// reasonFailedCreate: pods are missing and the API server refused to make one.
	reasonFailedCreate = "FailedCreate"
	// reasonFailedDelete: a pod that has to go couldn't be deleted.
	reasonFailedDelete = "FailedDelete"
	// reasonBackOff: a pod failed, and the next one waits for a while.
	reasonBackOff = "BackOff"
	// reasonSuspended: the user suspended the Job.
	reasonSuspended = "Suspended"
	// reasonEnding: the Job's end is decided, and its last pods are being ended and counted.
	reasonEnding = "Ending"
	// reasonNoNodes: no node matches a Job that wants a pod on every node.
	reasonNoNodes = "NoMatchingNodes"
	// reasonProgressing: pods are being made, run, or waited for, and nothing is known to be wrong.
	reasonProgressing = "Progressing"
)

// makeStatus completes the status of the account with what people and tools read: observedGeneration, the kstatus conditions, the
// columns. wait is when time alone will change it; 0 means never.
func makeStatus(s *scope, d *decision, a account, applyErr error) (status pbatchv1.JobStatus, wait time.Duration) {
	status = a.status
	status.ObservedGeneration = s.job.Generation
	verdict, wait := judge(s, d, &status, applyErr)
	status.Conditions = condition.Job.SetVerdict(status.Conditions, verdict, s.now)
	status.Columns = makeColumns(s, &status)
	return status, wait
}

// judge says in one sentence how far the Job is.
func judge(s *scope, d *decision, status *pbatchv1.JobStatus, applyErr error) (v condition.Verdict, wait time.Duration) {
	progress := describe(s, status)
	if c := find(status, batchv1.JobComplete); c != nil {
		return condition.Verdict{State: condition.Done, Reason: c.Reason, Message: progress}, 0
	}
	failed := jobstate.Latest(s.failures())
	if c := find(status, batchv1.JobFailed); c != nil {
		return condition.Verdict{State: condition.Failed, Reason: c.Reason, Message: because(c.Message, c.Reason, failed)}, 0
	}
	v = condition.Verdict{State: condition.InProgress, Reason: reasonProgressing, Message: progress}
	switch {
	case applyErr != nil:
		v.Reason, v.Message = reasonFailedCreate, applyErr.Error()
		if len(d.create) == 0 {
			v.Reason = reasonFailedDelete
		}
	case d.end != nil:
		v.Reason, v.Message = reasonEnding, "The last pods are being ended and counted: "+because(d.end.message, d.end.reason, failed)
	case suspended(s.job):
		v = condition.Verdict{State: condition.Waiting, Reason: reasonSuspended, Message: "The job is suspended. " + progress}
	case perNode(s.job) && status.MatchingNodes != nil && *status.MatchingNodes == 0:
		v.Reason, v.Message = reasonNoNodes, "No node matches the node selector, the node affinity and the tolerations of the template; the job waits for one."
	case d.paused != nil:
		v.Reason, v.Message = reasonBackOff, because("The next pod is made after a pause", reasonBackOff, d.paused)
	default:
		var problem *workload.Problem
		if problem, wait = workload.FirstProblem(running(s.pods), s.now); problem != nil {
			v.Reason, v.Message = problem.Reason, problem.Message
		}
	}
	return v, wait
}

// because adds to a sentence what the last failed pod says, unless the reason names a pod already or has nothing to do with one.
func because(message, reason string, failed *pcorev1.Pod) string {
	switch reason {
	case batchv1.JobReasonPodFailurePolicy, batchv1.JobReasonSuccessPolicy, batchv1.JobReasonCompletionsReached, batchv1.JobReasonDeadlineExceeded:
		return message + "."
	}
	if failed == nil {
		return message + "."
	}
	return message + ": " + jobstate.Why(failed) + "."
}

// running are the active pods. A pod that isn't ready yet but runs is doing its work.
func running(pods []*pcorev1.Pod) []*pcorev1.Pod {
	var out []*pcorev1.Pod
	for _, pod := range pods {
		if workload.IsActive(pod) {
			out = append(out, pod)
		}
	}
	return out
}

// describe says in numbers how far the Job is.
func describe(s *scope, status *pbatchv1.JobStatus) string {
	out := ""
	n, fixed := s.completions()
	switch {
	case perNode(s.job):
		out = fmt.Sprintf("The job is done on %d of %d nodes", status.Succeeded, *status.MatchingNodes)
	case fixed:
		out = fmt.Sprintf("%d of %d completions are reached", status.Succeeded, n)
	default:
		out = fmt.Sprintf("%d pods have succeeded", status.Succeeded)
	}
	if status.Active > 0 {
		out += fmt.Sprintf(", %d pods are active", status.Active)
	}
	if status.Failed > 0 {
		out += fmt.Sprintf(", %d pods have failed", status.Failed)
	}
	return out + "."
}

// makeColumns are kubectl's columns of a Job (printJob in upstream's pkg/printers/internalversion). The duration stands there once the
// Job has ended: one that still runs would be outdated when it is read.
func makeColumns(s *scope, status *pbatchv1.JobStatus) pcorev1.Columns {
	out := workload.Columns(0, 0, &s.job.Spec.Template, s.selector.String())
	delete(out, "ready")
	out["status"] = phase(s.job, status)
	n, fixed := s.completions()
	switch {
	case perNode(s.job):
		out["completions"] = fmt.Sprintf("%d/%d", status.Succeeded, *status.MatchingNodes)
	case fixed:
		out["completions"] = fmt.Sprintf("%d/%d", status.Succeeded, n)
	case s.parallelism() > 1:
		out["completions"] = fmt.Sprintf("%d/1 of %d", status.Succeeded, s.parallelism())
	default:
		out["completions"] = fmt.Sprintf("%d/1", status.Succeeded)
	}
	if end := endedAt(status); end != nil && status.StartTime != nil {
		out["duration"] = duration.HumanDuration(end.LastTransitionTime.Sub(status.StartTime.Time))
	}
	return out
}

// endedAt is the final condition, nil before the end.
func endedAt(status *pbatchv1.JobStatus) *batchv1.JobCondition {
	if c := find(status, batchv1.JobComplete); c != nil {
		return c
	}
	return find(status, batchv1.JobFailed)
}

// phase is what kubectl shows in the column STATUS.
func phase(job *pbatchv1.Job, status *pbatchv1.JobStatus) string {
	for _, kind := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if isTrue(status, kind) {
			return string(kind)
		}
	}
	if job.DeletionTimestamp != nil {
		return "Terminating"
	}
	for _, kind := range []batchv1.JobConditionType{batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if isTrue(status, kind) {
			return string(kind)
		}
	}
	return "Running"
}

// urgency is how soon a change of the status must be written.
type urgency int

const (
	// same means that nothing changed.
	same urgency = iota
	// counting means that only numbers on the way to the end changed.
	counting
	// now means that somebody may be waiting for this.
	now
)

// compareStatus says how soon the new status must be written.
func compareStatus(before, after *pbatchv1.JobStatus) urgency {
	if equality.Semantic.DeepEqual(before, after) {
		return same
	}
	if before.ObservedGeneration != after.ObservedGeneration || (before.StartTime == nil) != (after.StartTime == nil) {
		return now
	}
	for i := range after.Conditions {
		c := &after.Conditions[i]
		if old, _ := condition.Job.Get(before.Conditions, string(c.Type)); old.Status != c.Status {
			return now
		}
	}
	return counting
}
