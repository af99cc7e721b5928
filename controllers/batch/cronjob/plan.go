// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
)

// scope is all that one look at a CronJob knows.
type scope struct {
	cj *pbatchv1.CronJob
	// jobs are those that it controls, own writes included, deleted ones too.
	jobs []*pbatchv1.Job
	// foreign are names that jobs of others hold.
	foreign map[string]bool
	// table is the schedule; not set when fault is.
	table timetable
	fault *fault
	// since is where the search for missed times begins: the last run, or the beginning of the schedule.
	since time.Time
	now   time.Time
}

// plan is what to do now.
type plan struct {
	// remove these jobs, in order; then start a run at this time, unless it is zero.
	remove []*pbatchv1.Job
	start  time.Time
	// again says that the status has to be stored before more can be done.
	again bool
	// next is when to look again; zero: nothing comes by itself.
	next time.Time
	// notes are for the user.
	notes []note
}

// note is an event.
type note struct {
	kind, reason, message string
	// about keeps an event from being said twice: the same reason about the same thing is left out.
	about string
}

// makePlan decides what to do. A CronJob that is being deleted leaves its jobs to garbage collection.
func makePlan(s *scope) plan {
	var p plan
	if s.cj.DeletionTimestamp != nil {
		return p
	}
	recorded := isRecorded(s)
	p.notes = unexpected(s)
	if recorded {
		p.remove = overHistory(s.cj, s.jobs)
	}
	if s.fault == nil && !isSuspended(s.cj) {
		planRun(s, &p, recorded)
	}
	p.again = p.again || !recorded
	return p
}

// unexpected returns the note about unfinished jobs of the CronJob that somebody else made.
func unexpected(s *scope) []note {
	var names []string
	for _, job := range s.jobs {
		if !isFinished(job) && !isRun(s.cj, job) && !inActive(s.cj, job.UID) {
			names = append(names, job.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	list := strings.Join(names, ", ")
	return []note{{corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: " + list, list}}
}

// planRun says whether a run starts now, and when the next one may.
func planRun(s *scope, p *plan, recorded bool) {
	p.next = s.table.next(s.since, s.now)
	at := s.table.last(s.since, s.now)
	if at.IsZero() {
		return
	}
	counted := s.since
	if deadline := s.cj.Spec.StartingDeadlineSeconds; deadline != nil {
		oldest := s.now.Add(-time.Duration(*deadline) * time.Second)
		if at.Before(oldest) {
			p.notes = append(p.notes, note{corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: " + at.UTC().Format(time.RFC1123Z), at.String()})
			return
		}
		counted = later(counted, oldest)
	}
	if s.table.missedMany(counted, s.now) {
		p.notes = append(p.notes, note{
			corev1.EventTypeWarning, "TooManyMissedTimes", "Too many missed start times: set or decrease spec.startingDeadlineSeconds, or check the clocks",
			s.since.String(),
		})
	}
	name := runName(s.cj, at)
	if s.foreign[name] || slices.ContainsFunc(s.jobs, func(job *pbatchv1.Job) bool { return job.Name == name }) {
		return
	}
	active := activeJobs(s.cj, s.jobs)
	switch s.cj.Spec.ConcurrencyPolicy {
	case batchv1.ForbidConcurrent:
		if len(active) > 0 {
			p.notes = append(p.notes, note{
				corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid", at.String(),
			})
			return
		}
	case batchv1.ReplaceConcurrent:
		if len(active) > 0 && !recorded {
			return // the status first: see isRecorded
		}
		p.remove = append(p.remove, active...)
	case batchv1.AllowConcurrent:
	}
	p.start = at
}

// isRecorded says whether the stored status shows all that the jobs tell about past runs. While it doesn't, no job is
// deleted: with the job the only trace of the run would go, and after a crash it would be started again.
func isRecorded(s *scope) bool {
	return lastSchedule(s.cj, s.jobs).Equal(s.cj.Status.LastScheduleTime) && lastSuccess(s.cj, s.jobs).Equal(s.cj.Status.LastSuccessfulTime)
}

// overHistory returns the finished jobs that the history has no room for, the oldest first.
func overHistory(cj *pbatchv1.CronJob, jobs []*pbatchv1.Job) []*pbatchv1.Job {
	var out []*pbatchv1.Job
	for _, half := range []struct {
		outcome batchv1.JobConditionType
		limit   *int32
	}{{batchv1.JobComplete, cj.Spec.SuccessfulJobsHistoryLimit}, {batchv1.JobFailed, cj.Spec.FailedJobsHistoryLimit}} {
		if half.limit == nil {
			continue
		}
		var done []*pbatchv1.Job
		for _, job := range jobs {
			if outcome, _ := outcomeOf(job); outcome == half.outcome && job.DeletionTimestamp == nil {
				done = append(done, job)
			}
		}
		slices.SortFunc(done, olderFirst)
		out = append(out, done[:max(0, len(done)-int(*half.limit))]...)
	}
	return out
}

// olderFirst orders by the time of starting, those without one last, and equal ones by name. Upstream's.
func olderFirst(a, b *pbatchv1.Job) int {
	switch x, y := a.Status.StartTime, b.Status.StartTime; {
	case x == nil && y != nil:
		return 1
	case x != nil && y == nil:
		return -1
	case x != nil && !x.Equal(y):
		return x.Compare(y.Time)
	}
	return cmp.Compare(a.Name, b.Name)
}

// runName is the name of the job of a run. Its minute keeps one run from being started twice.
func runName(cj *pbatchv1.CronJob, at time.Time) string {
	return cj.Name + "-" + strconv.FormatInt(at.Unix()/60, 10)
}

// runTime returns the time of the run that a job is; ok is false for a job that the controller didn't make, such as one that kubectl made
// from the CronJob by hand.
func runTime(cj *pbatchv1.CronJob, job *pbatchv1.Job) (at time.Time, ok bool) {
	at, err := time.Parse(time.RFC3339, job.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	return at, err == nil && job.Name == runName(cj, at)
}

func isRun(cj *pbatchv1.CronJob, job *pbatchv1.Job) bool {
	_, ok := runTime(cj, job)
	return ok
}

// makeJob builds the job of a run.
func makeJob(cj *pbatchv1.CronJob, at time.Time) *pbatchv1.Job {
	zone := time.UTC
	if cj.Spec.TimeZone != nil {
		if named, err := time.LoadLocation(*cj.Spec.TimeZone); err == nil {
			zone = named
		}
	}
	job := &pbatchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: runName(cj, at), Namespace: cj.Namespace,
		Labels: maps.Clone(cj.Spec.JobTemplate.Labels), Annotations: maps.Clone(cj.Spec.JobTemplate.Annotations),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kind)},
	}}
	if job.Annotations == nil {
		job.Annotations = map[string]string{}
	}
	job.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	cj.Spec.JobTemplate.Spec.DeepCopyInto(&job.Spec)
	return job
}

// outcomeOf returns how a job ended, Complete or Failed, with the condition that says so; empty while it runs.
func outcomeOf(job *pbatchv1.Job) (batchv1.JobConditionType, batchv1.JobCondition) {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type, c
		}
	}
	return "", batchv1.JobCondition{}
}

func isFinished(job *pbatchv1.Job) bool {
	outcome, _ := outcomeOf(job)
	return outcome != ""
}

func isSuspended(cj *pbatchv1.CronJob) bool { return cj.Spec.Suspend != nil && *cj.Spec.Suspend }

func inActive(cj *pbatchv1.CronJob, uid types.UID) bool {
	return slices.ContainsFunc(cj.Status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == uid })
}

// activeJobs are the unfinished runs, those that the status lists first. Jobs that others made for the CronJob don't count, unless
// somebody listed them. A deleted one counts until it is gone, since its pods may run, except where runs replace each other.
func activeJobs(cj *pbatchv1.CronJob, jobs []*pbatchv1.Job) []*pbatchv1.Job {
	var out []*pbatchv1.Job
	for _, job := range jobs {
		if isFinished(job) || job.DeletionTimestamp != nil && cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent {
			continue
		}
		if isRun(cj, job) || inActive(cj, job.UID) {
			out = append(out, job)
		}
	}
	place := func(job *pbatchv1.Job) int {
		i := slices.IndexFunc(cj.Status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == job.UID })
		if i < 0 {
			return len(cj.Status.Active)
		}
		return i
	}
	slices.SortFunc(out, func(a, b *pbatchv1.Job) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a.Name, b.Name))
	})
	return out
}

// lastSchedule is the time of the newest run: what the status says or, when the process died before it was written, what a job says.
func lastSchedule(cj *pbatchv1.CronJob, jobs []*pbatchv1.Job) *metav1.Time {
	last := cj.Status.LastScheduleTime
	for _, job := range jobs {
		if at, ok := runTime(cj, job); ok && (last == nil || at.After(last.Time)) {
			last = &metav1.Time{Time: at.UTC()}
		}
	}
	return last
}

// lastSuccess is when the run that succeeded last was done.
func lastSuccess(cj *pbatchv1.CronJob, jobs []*pbatchv1.Job) *metav1.Time {
	last := cj.Status.LastSuccessfulTime
	for _, job := range jobs {
		outcome, _ := outcomeOf(job)
		if at := job.Status.CompletionTime; outcome == batchv1.JobComplete && at != nil && (last == nil || at.After(last.Time)) {
			last = at
		}
	}
	return last
}

// describe says in one sentence when a CronJob runs. It tells one schedule from another, so it holds all that a schedule consists of.
func describe(spec *pbatchv1.CronJobSpec) string {
	if spec.TimeZone == nil {
		return fmt.Sprintf("Runs start at %q, in the manager's time zone.", spec.Schedule)
	}
	return fmt.Sprintf("Runs start at %q in the time zone %s.", spec.Schedule, *spec.TimeZone)
}
