// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// conditionScheduled is an extension: true while the schedule is understood. Its message is the schedule, and its transition time is
// since when this schedule holds: times of a new schedule that were past when it was written aren't missed runs.
const conditionScheduled = "Scheduled"

// Reasons of CronJob's conditions.
const (
	// reasonScheduled: the schedule is followed.
	reasonScheduled = "Scheduled"
	// reasonSuspended: spec.suspend is true.
	reasonSuspended = "Suspended"
	// reasonLastRunFailed: the schedule is followed, and the newest finished run failed.
	reasonLastRunFailed = "LastRunFailed"
	// reasonFailedCreate: the API server refused the job of a run. It is tried again.
	reasonFailedCreate = "FailedCreate"
	// reasonFailedDelete: a job couldn't be deleted. It is tried again.
	reasonFailedDelete = "FailedDelete"
	// reasonNameTaken: a job of somebody else has the name that the latest run needs; the run is left out.
	reasonNameTaken = "JobNameTaken"
	// reasonUnknownTimeZone, reasonUnparseableSchedule, reasonUnsupportedSchedule and reasonInvalidSchedule: the user has to change
	// spec.timeZone or spec.schedule. Upstream has them as events.
	reasonUnknownTimeZone     = "UnknownTimeZone"
	reasonUnparseableSchedule = "UnparseableSchedule"
	reasonUnsupportedSchedule = "UnsupportedSchedule"
	reasonInvalidSchedule     = "InvalidSchedule"
)

// scheduleSince returns since when the present schedule holds.
func scheduleSince(cj *pbatchv1.CronJob, now time.Time) time.Time {
	c, ok := condition.Meta.Get(cj.Status.Conditions, conditionScheduled)
	switch {
	case !ok:
		return cj.CreationTimestamp.Time
	case c.Status == corev1.ConditionTrue && c.Message == condition.Bound(describe(&cj.Spec)):
		return c.LastTransitionTime.Time
	}
	return condition.Stamp(now).Time
}

// makeStatus computes the status. failure is what went wrong in applying the plan, with its reason.
func makeStatus(s *scope, failure *fault) pbatchv1.CronJobStatus {
	status := *s.cj.Status.DeepCopy()
	status.ObservedGeneration = s.cj.Generation
	status.LastScheduleTime = lastSchedule(s.cj, s.jobs)
	status.LastSuccessfulTime = lastSuccess(s.cj, s.jobs)
	status.Active = nil
	for _, job := range activeJobs(s.cj, s.jobs) {
		status.Active = append(status.Active, corev1.ObjectReference{
			APIVersion: pbatchv1.GroupVersion.String(), Kind: "Job", Namespace: job.Namespace, Name: job.Name, UID: job.UID,
		})
	}
	status.Columns = workload.Columns(0, 0, &s.cj.Spec.JobTemplate.Spec.Template, metav1.FormatLabelSelector(s.cj.Spec.JobTemplate.Spec.Selector))
	delete(status.Columns, "ready")
	status.Columns["active"] = strconv.Itoa(len(status.Active))

	status.Conditions = scheduled(s, status.Conditions)
	status.Conditions = condition.Meta.SetVerdict(status.Conditions, judge(s, failure), s.now)
	status.Conditions = condition.Observed(status.Conditions, s.cj.Generation)
	return status
}

// scheduled keeps the condition Scheduled, whose transition time changes with its message too.
func scheduled(s *scope, list []metav1.Condition) []metav1.Condition {
	c := condition.Condition{Type: conditionScheduled, Status: corev1.ConditionTrue, Reason: reasonScheduled, Message: describe(&s.cj.Spec)}
	if s.fault != nil {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, s.fault.reason, s.fault.message
		return condition.Meta.Set(list, c, s.now)
	}
	since := metav1.NewTime(scheduleSince(s.cj, s.now))
	list = slices.Clone(condition.Meta.Set(list, c, s.now))
	for i := range list {
		if list[i].Type == conditionScheduled {
			list[i].LastTransitionTime = since
		}
	}
	return list
}

// judge says in one sentence how the CronJob is.
func judge(s *scope, failure *fault) condition.Verdict {
	if s.fault != nil {
		return condition.Verdict{State: condition.Failed, Reason: s.fault.reason, Message: s.fault.message}
	}
	if failure != nil {
		return condition.Verdict{State: condition.InProgress, Reason: failure.reason, Message: failure.message}
	}
	if isSuspended(s.cj) {
		return condition.Verdict{State: condition.Done, Reason: reasonSuspended, Message: "No run starts while spec.suspend is true."}
	}
	if at := s.table.last(s.since, s.now); !at.IsZero() && s.foreign[runName(s.cj, at)] {
		return condition.Verdict{
			State: condition.InProgress, Reason: reasonNameTaken,
			Message: fmt.Sprintf("The latest run was left out, since Job %s belongs to somebody else: delete or rename that.", runName(s.cj, at)),
		}
	}
	if job := newestFinished(s); job != nil {
		if outcome, c := outcomeOf(job); outcome == batchv1.JobFailed {
			message := fmt.Sprintf("The schedule is followed; the newest finished run, Job %s, failed: %s", job.Name, c.Reason)
			if c.Message != "" {
				message += ": " + c.Message
			}
			return condition.Verdict{State: condition.Done, Reason: reasonLastRunFailed, Message: message + "."}
		}
	}
	return condition.Verdict{State: condition.Done, Reason: reasonScheduled, Message: "The schedule is followed."}
}

// newestFinished returns the finished run with the latest time.
func newestFinished(s *scope) *pbatchv1.Job {
	var newest *pbatchv1.Job
	var latest time.Time
	for _, job := range s.jobs {
		if at, ok := runTime(s.cj, job); ok && isFinished(job) && (newest == nil || at.After(latest)) {
			newest, latest = job, at
		}
	}
	return newest
}

// completed returns the notes of the runs that the old status lists as active and that aren't any longer.
func completed(s *scope) []note {
	var out []note
	for _, ref := range s.cj.Status.Active {
		i := slices.IndexFunc(s.jobs, func(job *pbatchv1.Job) bool { return job.UID == ref.UID })
		if i < 0 {
			out = append(out, note{corev1.EventTypeNormal, "MissingJob", "Active job went missing: " + ref.Name, string(ref.UID)})
		} else if outcome, _ := outcomeOf(s.jobs[i]); outcome != "" {
			out = append(out, note{corev1.EventTypeNormal, "SawCompletedJob", fmt.Sprintf("Saw completed job: %s, condition: %s", ref.Name, outcome), string(ref.UID)})
		}
	}
	return out
}
