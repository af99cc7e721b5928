// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"context"
	"errors"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// model is a world with one CronJob and a clock that jumps.
type model struct {
	*lagging.World
	r   *Reconciler
	now time.Time
	// fate is what happens to the controller's next write.
	fate string
	// started are the names of all jobs that were ever made, with their UIDs.
	started map[string]types.UID
	policy  batchv1.ConcurrencyPolicy
}

var tidy = types.NamespacedName{Namespace: "test", Name: "tidy"}

func newModel(t *rapid.T) *model {
	m := &model{
		now: ten, started: map[string]types.UID{},
		policy: rapid.SampledFrom([]batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}).Draw(t, "policy"),
	}
	m.World = lagging.New(t, lagging.Options{
		Schemes: []func(*runtime.Scheme) error{pbatchv1.AddToScheme},
		Status:  []client.Object{&pbatchv1.CronJob{}, &pbatchv1.Job{}},
		Now:     func() time.Time { return m.now },
		Before:  m.before,
		After:   m.after,
		Gone:    func(owner types.UID, obj client.Object) { m.r.own.Gone(owner, obj.GetUID()) },
	})
	cj := &pbatchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: tidy.Name, Namespace: tidy.Namespace, Generation: 1}}
	cj.Spec = pbatchv1.CronJobSpec{
		Schedule:          rapid.SampledFrom([]string{"* * * * *", "*/5 * * * *", "@every 1m", "@every 90s"}).Draw(t, "schedule"),
		ConcurrencyPolicy: m.policy, SuccessfulJobsHistoryLimit: new(rapid.Int32Range(0, 2).Draw(t, "history")), FailedJobsHistoryLimit: new(int32(1)),
	}
	m.Must(m.Truth.Create(context.Background(), cj))
	m.restart()
	return m
}

// before refuses a write if that is its fate.
func (m *model) before(w lagging.Write) error {
	fate := m.fate
	switch {
	case !w.ByController:
	case fate == "fails":
		m.fate = ""
		return apierrors.NewInternalError(errors.New("injected"))
	case fate == "conflicts":
		m.fate = ""
		return apierrors.NewConflict(schema.GroupResource{Resource: "injected"}, w.Object.GetName(), errors.New("injected"))
	}
	return nil
}

// after notes which runs were started, and loses the answer if that is its fate.
func (m *model) after(w lagging.Write) error {
	if job, ok := w.Object.(*pbatchv1.Job); ok {
		if old, again := m.started[job.Name]; again && old != job.UID {
			m.Broken("run %s was started twice", job.Name)
		}
		m.started[job.Name] = job.UID
	}
	if w.ByController && m.fate == "is lost" {
		m.fate = ""
		return apierrors.NewTimeoutError("injected", 0)
	}
	return nil
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(m.Client(), m.Live(), Options{Events: &events.FakeRecorder{}, Now: func() time.Time { return m.now }, Local: time.UTC})
	m.SeeAll()
}

// reconcile lets the controller look once; only injected errors are expected.
func (m *model) reconcile() {
	before := m.active()
	m.Reconcile(m.r, tidy, apierrors.IsInternalError, apierrors.IsTimeout, apierrors.IsConflict)
	if m.policy == batchv1.ForbidConcurrent && len(m.active()) > max(1, len(before)) {
		m.T.Fatalf("%d runs overlap", len(m.active()))
	}
}

func (m *model) jobs() []*pbatchv1.Job {
	return lagging.Items[*pbatchv1.Job](m.World, &pbatchv1.JobList{})
}

func (m *model) active() []*pbatchv1.Job {
	var out []*pbatchv1.Job
	for _, job := range m.jobs() {
		if !isFinished(job) {
			out = append(out, job)
		}
	}
	return out
}

func (m *model) cronJob() *pbatchv1.CronJob { return lagging.Get(m.World, tidy, &pbatchv1.CronJob{}) }

// finish ends a job.
func (m *model) finish(job *pbatchv1.Job, outcome batchv1.JobConditionType) {
	at := metav1.NewTime(m.now.Truncate(time.Second))
	job.Status.StartTime = &at
	if outcome == batchv1.JobComplete {
		job.Status.CompletionTime = &at
	}
	job.Status.Conditions = []batchv1.JobCondition{{Type: outcome, Status: corev1.ConditionTrue}}
	m.Must(m.Truth.Status().Update(context.Background(), job))
}

// step lets one thing happen.
func (m *model) step() {
	switch rapid.SampledFrom([]string{"reconcile", "reconcile", "see", "see", "time", "time", "crash", "fault", "end", "end"}).Draw(m.T, "event") {
	case "reconcile":
		m.reconcile()
	case "see":
		m.SeeSome(3)
	case "time":
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 400).Draw(m.T, "seconds")) * time.Second)
	case "crash":
		m.Crash(3, m.reconcile, m.restart)
	case "fault":
		m.fate = rapid.SampledFrom([]string{"fails", "is lost", "conflicts"}).Draw(m.T, "fate")
		m.reconcile()
		m.fate = ""
	case "end":
		if active := m.active(); len(active) > 0 {
			job := lagging.Pick(m.World, "job", active)
			m.finish(job, rapid.SampledFrom([]batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed}).Draw(m.T, "outcome"))
		}
	}
}

// TestRuns: with a cache that lags, writes that fail, get lost or meet conflicts, a clock that jumps, and a controller that dies between any
// two writes: no run is started twice, with Forbid no two overlap, and in the end the history is within its limits and the status true.
func TestRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.step()
		}
		for range 6 {
			m.SeeAll()
			m.reconcile()
		}
		cj := m.cronJob()
		done := map[batchv1.JobConditionType]int{}
		for _, job := range m.jobs() {
			outcome, _ := outcomeOf(job)
			done[outcome]++
			if at, ok := runTime(cj, job); !ok || cj.Status.LastScheduleTime == nil || at.After(cj.Status.LastScheduleTime.Time) {
				t.Fatalf("job %s of %s, but the last one is of %v", job.Name, at, cj.Status.LastScheduleTime)
			}
		}
		if n := done[batchv1.JobComplete]; n > int(*cj.Spec.SuccessfulJobsHistoryLimit) {
			t.Fatalf("%d succeeded jobs, the limit is %d", n, *cj.Spec.SuccessfulJobsHistoryLimit)
		}
		if n := done[batchv1.JobFailed]; n > 1 {
			t.Fatalf("%d failed jobs, the limit is 1", n)
		}
		if done[""] != len(cj.Status.Active) {
			t.Fatalf("%d runs, of which the status lists %d", done[""], len(cj.Status.Active))
		}
		if m.policy != batchv1.AllowConcurrent && done[""] > 1 {
			t.Fatalf("%d runs with %s", done[""], m.policy)
		}
		if m.policy != batchv1.ForbidConcurrent || done[""] == 0 {
			s := &scope{cj: cj, jobs: m.jobs(), now: m.now}
			s.read(time.UTC)
			if p := makePlan(s); !p.start.IsZero() {
				t.Fatalf("the run of %s is still to be started", p.start)
			}
		}
	})
}
