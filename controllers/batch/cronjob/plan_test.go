// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

// ten is a full hour; hours and minutes of the tests are on the same day.
var ten = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func clock(hour, minute int) time.Time { return time.Date(2026, 11, 21, hour, minute, 0, 0, time.UTC) }

func stamp(hour, minute int) *metav1.Time {
	out := metav1.NewTime(clock(hour, minute))
	return &out
}

// newScope is a CronJob that runs every hour, last at ten, looked at half past eleven.
func newScope(changes ...func(*pbatchv1.CronJob)) *scope {
	cj := &pbatchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "tidy", Namespace: "test", UID: "tidy", Generation: 3, CreationTimestamp: *stamp(1, 0)}}
	cj.Spec = pbatchv1.CronJobSpec{
		Schedule: "0 * * * *", ConcurrencyPolicy: batchv1.AllowConcurrent, SuccessfulJobsHistoryLimit: new(int32(3)), FailedJobsHistoryLimit: new(int32(1)),
	}
	cj.Spec.JobTemplate.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "image:1"}}
	cj.Status.LastScheduleTime = stamp(10, 0)
	for _, change := range changes {
		change(cj)
	}
	return &scope{cj: cj, now: clock(11, 30)}
}

// job is a run of a time; state is running, done or failed.
func (s *scope) job(at time.Time, state string, changes ...func(*pbatchv1.Job)) *scope {
	job := makeJob(s.cj, at)
	job.UID = types.UID(job.Name)
	begun := metav1.NewTime(at)
	job.Status.StartTime = &begun
	switch state {
	case "done":
		end := metav1.NewTime(at.Add(time.Minute))
		job.Status.CompletionTime = &end
		job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	case "failed":
		job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "it failed 7 times"}}
	}
	for _, change := range changes {
		change(job)
	}
	s.jobs = append(s.jobs, job)
	return s
}

func (s *scope) listed(names ...string) *scope {
	for _, name := range names {
		s.cj.Status.Active = append(s.cj.Status.Active, corev1.ObjectReference{Name: name, UID: types.UID(name)})
	}
	return s
}

func runAt(hour, minute int) string { return fmt.Sprintf("tidy-%d", clock(hour, minute).Unix()/60) }

func policy(p batchv1.ConcurrencyPolicy) func(*pbatchv1.CronJob) {
	return func(cj *pbatchv1.CronJob) { cj.Spec.ConcurrencyPolicy = p }
}

type outline struct {
	Start  string
	Remove []string
	Next   string
	Again  bool
	Notes  []string
}

func TestPlan(t *testing.T) {
	manual := func(job *pbatchv1.Job) { job.Name, job.UID, job.Annotations = "by-hand", "by-hand", nil }
	deleted := func(job *pbatchv1.Job) { job.DeletionTimestamp = stamp(11, 29) }
	for what, test := range map[string]struct {
		scope *scope
		want  outline
	}{
		"a missed run starts late": {newScope(), outline{Start: "11:00", Next: "12:00"}},
		"nothing is due":           {newScope(func(cj *pbatchv1.CronJob) { cj.Status.LastScheduleTime = stamp(11, 0) }), outline{Next: "12:00"}},
		"of several missed runs the latest starts": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Status.LastScheduleTime = stamp(5, 0) }), outline{Start: "11:00", Next: "12:00"},
		},
		"a new CronJob counts from its birth": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Status.LastScheduleTime = nil; cj.CreationTimestamp = *stamp(11, 1) }), outline{Next: "12:00"},
		},
		"suspended": {newScope(func(cj *pbatchv1.CronJob) { cj.Spec.Suspend = new(true) }), outline{}},
		"being deleted": {
			newScope(func(cj *pbatchv1.CronJob) { cj.DeletionTimestamp = stamp(11, 0) }).job(clock(9, 0), "failed").job(clock(10, 0), "failed"), outline{},
		},
		"within the deadline": {newScope(func(cj *pbatchv1.CronJob) { cj.Spec.StartingDeadlineSeconds = new(int64(1800)) }), outline{Start: "11:00", Next: "12:00"}},
		"beyond the deadline": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Spec.StartingDeadlineSeconds = new(int64(1799)) }),
			outline{Next: "12:00", Notes: []string{"MissSchedule"}},
		},
		"too many missed": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Spec.Schedule = "* * * * *"; cj.Status.LastScheduleTime = stamp(9, 0) }),
			outline{Start: "11:30", Next: "11:31", Notes: []string{"TooManyMissedTimes"}},
		},
		"too many missed, but a deadline": {
			newScope(func(cj *pbatchv1.CronJob) {
				cj.Spec.Schedule, cj.Status.LastScheduleTime, cj.Spec.StartingDeadlineSeconds = "* * * * *", stamp(9, 0), new(int64(60))
			}),
			outline{Start: "11:30", Next: "11:31"},
		},
		"Allow beside an active run":  {newScope().job(clock(10, 0), "running").listed(runAt(10, 0)), outline{Start: "11:00", Next: "12:00"}},
		"Forbid beside an active run": {newScope(policy(batchv1.ForbidConcurrent)).job(clock(10, 0), "running").listed(runAt(10, 0)), outline{Next: "12:00", Notes: []string{"JobAlreadyActive"}}},
		"Forbid beside a run that the status forgot": {
			newScope(policy(batchv1.ForbidConcurrent)).job(clock(10, 0), "running"), outline{Next: "12:00", Notes: []string{"JobAlreadyActive"}},
		},
		"Forbid beside a run that is being deleted": {
			newScope(policy(batchv1.ForbidConcurrent)).job(clock(10, 0), "running", deleted), outline{Next: "12:00", Notes: []string{"JobAlreadyActive"}},
		},
		"Forbid after a run": {newScope(policy(batchv1.ForbidConcurrent), succeededAt(10, 1)).job(clock(10, 0), "done"), outline{Start: "11:00", Next: "12:00"}},
		"Forbid beside a job by hand": {
			newScope(policy(batchv1.ForbidConcurrent)).job(clock(10, 10), "running", manual), outline{Start: "11:00", Next: "12:00", Notes: []string{"UnexpectedJob"}},
		},
		"Replace": {
			newScope(policy(batchv1.ReplaceConcurrent)).job(clock(10, 0), "running").listed(runAt(10, 0)),
			outline{Start: "11:00", Next: "12:00", Remove: []string{runAt(10, 0)}},
		},
		"Replace what is being deleted": {
			newScope(policy(batchv1.ReplaceConcurrent)).job(clock(10, 0), "running", deleted), outline{Start: "11:00", Next: "12:00"},
		},
		"Replace, before the status knows of the run": {
			newScope(policy(batchv1.ReplaceConcurrent), func(cj *pbatchv1.CronJob) { cj.Status.LastScheduleTime = stamp(9, 0) }).job(clock(10, 0), "running"),
			outline{Next: "12:00", Again: true},
		},
		"the run is there, the status doesn't know":  {newScope().job(clock(11, 0), "running"), outline{Next: "12:00", Again: true}},
		"the run ended, and the status doesn't know": {newScope().job(clock(11, 0), "done"), outline{Next: "12:00", Again: true}},
		"the name is taken":                          {newScope().taken(runAt(11, 0)), outline{Next: "12:00"}},
		"the history is full": {
			newScope(succeededAt(9, 1), func(cj *pbatchv1.CronJob) { cj.Status.LastScheduleTime = stamp(11, 0) }).
				job(clock(9, 0), "done").job(clock(6, 0), "done").job(clock(8, 0), "done").job(clock(7, 0), "done").
				job(clock(10, 0), "failed").job(clock(5, 0), "failed"),
			outline{Next: "12:00", Remove: []string{runAt(6, 0), runAt(5, 0)}},
		},
		"no history": {
			newScope(succeededAt(10, 1), func(cj *pbatchv1.CronJob) {
				cj.Status.LastScheduleTime, cj.Spec.SuccessfulJobsHistoryLimit = stamp(11, 0), new(int32(0))
			}).job(clock(10, 0), "done").job(clock(11, 0), "running"),
			outline{Next: "12:00", Remove: []string{runAt(10, 0)}},
		},
		"unlimited history": {
			newScope(succeededAt(10, 1), func(cj *pbatchv1.CronJob) {
				cj.Status.LastScheduleTime, cj.Spec.SuccessfulJobsHistoryLimit = stamp(11, 0), nil
			}).job(clock(10, 0), "done").job(clock(9, 0), "done").job(clock(8, 0), "done").job(clock(7, 0), "done"),
			outline{Next: "12:00"},
		},
		"the history is tidied while suspended": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Spec.Suspend = new(true) }).job(clock(10, 0), "failed").job(clock(9, 0), "failed"),
			outline{Remove: []string{runAt(9, 0)}},
		},
		"a deleted job isn't deleted again": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Spec.Suspend = new(true) }).job(clock(10, 0), "failed").job(clock(9, 0), "failed", deleted), outline{},
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := test.scope
			s.read(time.UTC)
			p := makePlan(s)
			got := outline{Again: p.again}
			if !p.start.IsZero() {
				got.Start = p.start.Format("15:04")
			}
			if !p.next.IsZero() {
				got.Next = p.next.Format("15:04")
			}
			for _, job := range p.remove {
				got.Remove = append(got.Remove, job.Name)
			}
			for _, n := range p.notes {
				got.Notes = append(got.Notes, n.reason)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func succeededAt(hour, minute int) func(*pbatchv1.CronJob) {
	return func(cj *pbatchv1.CronJob) { cj.Status.LastSuccessfulTime = stamp(hour, minute) }
}

func (s *scope) taken(name string) *scope {
	s.foreign = map[string]bool{name: true}
	return s
}

// TestNewScheduleStartsNothingLate: times of a new schedule that were past when it was written aren't missed runs; those of a new time
// zone neither.
func TestNewScheduleStartsNothingLate(t *testing.T) {
	s := newScope(func(cj *pbatchv1.CronJob) { cj.Status.LastScheduleTime = stamp(11, 0) })
	s.read(time.UTC)
	s.cj.Status = makeStatus(s, nil)
	for _, change := range []func(*pbatchv1.CronJobSpec){
		func(spec *pbatchv1.CronJobSpec) { spec.Schedule = "15 * * * *" },
		func(spec *pbatchv1.CronJobSpec) { spec.TimeZone = new("Asia/Kolkata") },
	} {
		changed := &scope{cj: s.cj.DeepCopy(), now: clock(11, 30)}
		change(&changed.cj.Spec)
		for range 2 { // before and after the status says so
			changed.read(time.UTC)
			if p := makePlan(changed); !p.start.IsZero() {
				t.Errorf("%s: a run of %s starts", describe(&changed.cj.Spec), p.start)
			}
			changed.cj.Status = makeStatus(changed, nil)
		}
		changed.now = clock(12, 31)
		changed.read(time.UTC)
		if p := makePlan(changed); p.start.IsZero() {
			t.Errorf("%s: no run starts when its time comes", describe(&changed.cj.Spec))
		}
	}
}

func TestJob(t *testing.T) {
	s := newScope(func(cj *pbatchv1.CronJob) {
		cj.Spec.TimeZone = new("Asia/Kolkata")
		cj.Spec.JobTemplate.Labels = map[string]string{"a": "b"}
		cj.Spec.JobTemplate.Annotations = map[string]string{"c": "d"}
		cj.Spec.JobTemplate.Spec.BackoffLimit = new(int32(2))
	})
	got := makeJob(s.cj, ten)
	want := &pbatchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: "tidy-29920920", Namespace: "test", Labels: map[string]string{"a": "b"},
		Annotations: map[string]string{"c": "d", batchv1.CronJobScheduledTimestampAnnotation: "2026-11-21T15:30:00+05:30"},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "batch.pinnace.dev/v1", Kind: "CronJob", Name: "tidy", UID: "tidy", Controller: new(true), BlockOwnerDeletion: new(true),
		}},
	}}
	s.cj.Spec.JobTemplate.Spec.DeepCopyInto(&want.Spec)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if at, ok := runTime(s.cj, got); !ok || !at.Equal(ten) {
		t.Errorf("the job's time is %s, %v", at, ok)
	}
	if len(s.cj.Spec.JobTemplate.Annotations) != 1 {
		t.Error("the template was written to")
	}
}

func TestStatus(t *testing.T) {
	for what, test := range map[string]struct {
		scope   *scope
		failure *fault
		want    string
	}{
		"fine":      {newScope(), nil, "Ready=True Scheduled: The schedule is followed."},
		"suspended": {newScope(func(cj *pbatchv1.CronJob) { cj.Spec.Suspend = new(true) }), nil, "Ready=True Suspended: No run starts while spec.suspend is true."},
		"bad zone": {
			newScope(func(cj *pbatchv1.CronJob) { cj.Spec.TimeZone = new("Mars/Olympus") }), nil,
			`Ready=False UnknownTimeZone: The time zone "Mars/Olympus" isn't known: write a name such as Europe/Zurich into spec.timeZone. Stalled`,
		},
		"refused": {newScope(), &fault{reasonFailedCreate, "Job x can't be made: quota."}, "Ready=False FailedCreate: Job x can't be made: quota. Reconciling"},
		"the last run failed": {
			newScope().job(clock(9, 0), "done").job(clock(10, 0), "failed").job(clock(11, 0), "running"), nil,
			"Ready=True LastRunFailed: The schedule is followed; the newest finished run, Job " + runAt(10, 0) + ", failed: BackoffLimitExceeded: it failed 7 times.",
		},
		"name taken": {
			newScope().taken(runAt(11, 0)), nil,
			"Ready=False JobNameTaken: The latest run was left out, since Job " + runAt(11, 0) + " belongs to somebody else: delete or rename that. Reconciling",
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := test.scope
			s.read(time.UTC)
			status := makeStatus(s, test.failure)
			ready, _ := condition.Meta.Get(status.Conditions, pcorev1.ConditionReady)
			got := fmt.Sprintf("Ready=%s %s: %s", ready.Status, ready.Reason, ready.Message)
			for _, mark := range []string{pcorev1.ConditionReconciling, pcorev1.ConditionStalled} {
				if _, ok := condition.Meta.Get(status.Conditions, mark); ok {
					got += " " + mark
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			s.cj.Status, s.now = status, s.now.Add(10*time.Minute)
			if diff := cmp.Diff(status, makeStatus(s, test.failure)); diff != "" {
				t.Errorf("the status changes by itself: %s", diff)
			}
		})
	}
}

func TestStatusOfRuns(t *testing.T) {
	s := newScope().listed("gone", runAt(10, 0), runAt(9, 0)).
		job(clock(9, 0), "running").job(clock(10, 0), "done").job(clock(11, 0), "running")
	s.read(time.UTC)
	status := makeStatus(s, nil)
	want := pbatchv1.CronJobStatus{
		CronJobStatus: batchv1.CronJobStatus{
			Active: []corev1.ObjectReference{
				{APIVersion: "batch.pinnace.dev/v1", Kind: "Job", Namespace: "test", Name: runAt(9, 0), UID: types.UID(runAt(9, 0))},
				{APIVersion: "batch.pinnace.dev/v1", Kind: "Job", Namespace: "test", Name: runAt(11, 0), UID: types.UID(runAt(11, 0))},
			},
			LastScheduleTime: stamp(11, 0), LastSuccessfulTime: stamp(10, 1),
		},
		ObservedGeneration: 3,
		Columns:            pcorev1.Columns{"active": "2", "containers": "main", "images": "image:1", "selector": "<none>"},
		Conditions:         status.Conditions,
	}
	if diff := cmp.Diff(want, status); diff != "" {
		t.Error(diff)
	}
	var notes []string
	for _, n := range completed(s) {
		notes = append(notes, n.reason+" "+n.message)
	}
	if diff := cmp.Diff([]string{"MissingJob Active job went missing: gone", "SawCompletedJob Saw completed job: " + runAt(10, 0) + ", condition: Complete"}, notes); diff != "" {
		t.Error(diff)
	}
	for _, c := range status.Conditions {
		if c.ObservedGeneration != 3 {
			t.Errorf("condition %s is of generation %d", c.Type, c.ObservedGeneration)
		}
	}
}
