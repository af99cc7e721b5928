// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/batch/cronjob"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/test/env"
)

// cronWorld is an API server with the CronJob loop alone, whose clock the test moves. The test stands in for the Job loop.
type cronWorld struct {
	*world
	// ahead is how far the loop's clock is ahead of the machine's.
	ahead atomic.Int64
	ticks int
}

func newCronWorld(t *testing.T, wrap func(client.Client) client.Client) *cronWorld {
	t.Helper()
	e := env.Start(t)
	ctx, cancel := context.WithCancel(context.Background())
	w := &cronWorld{world: &world{T: t, Client: e.Client, ctx: ctx}}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "cron-"}}
	w.must(e.Client.Create(ctx, ns))
	w.namespace = ns.Name
	stop := w.startLoop(e, wrap)
	w.restart = func() {
		stop()
		stop = w.startLoop(e, wrap)
	}
	t.Cleanup(func() {
		w.must(w.DeleteAllOf(ctx, &pbatchv1.CronJob{}, client.InNamespace(w.namespace)))
		w.must(w.DeleteAllOf(ctx, &pbatchv1.Job{}, client.InNamespace(w.namespace)))
		stop()
		cancel()
	})
	return w
}

func (w *cronWorld) startLoop(e *env.Env, wrap func(client.Client) client.Client) (stop func()) {
	w.Helper()
	mgr, err := ctrl.NewManager(e.Config, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{DefaultTransform: kube.Slim},
		NewClient: func(cfg *restConfig, opts client.Options) (client.Client, error) {
			c, err := kube.NewClient(cfg, opts)
			if err == nil && wrap != nil {
				c = wrap(c)
			}
			return c, err
		},
	})
	w.must(err)
	w.must(kube.AddIndexes(w.ctx, mgr.GetFieldIndexer()))
	w.must(cronjob.NewReconciler(mgr.GetClient(), mgr.GetAPIReader(), cronjob.Options{Now: w.now}).SetupWithManager(mgr))
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(w.ctx)
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			w.Error(err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (w *cronWorld) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// cronJob makes a CronJob that runs at the first minute of every hour, or as changed.
func (w *cronWorld) cronJob(name string, change func(*pbatchv1.CronJob)) *pbatchv1.CronJob {
	w.Helper()
	cj := &pbatchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	cj.Spec.Schedule = "0 * * * *"
	cj.Spec.JobTemplate.Spec.Template = template(nil, "image:1")
	cj.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if change != nil {
		change(cj)
	}
	w.must(w.Create(w.ctx, cj))
	w.settle(cj)
	return cj
}

// settle waits until the loop has looked at the CronJob's present generation.
func (w *cronWorld) settle(cj *pbatchv1.CronJob) {
	w.Helper()
	w.eventually("the status of "+cj.Name+" follows", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(cj), cj); err != nil {
			return err
		}
		if cj.Status.ObservedGeneration != cj.Generation {
			return errNotYet
		}
		return nil
	})
}

// pass lets time pass for the loop, and makes it look: its timers run by the machine's clock.
func (w *cronWorld) pass(cj *pbatchv1.CronJob, d time.Duration) {
	w.Helper()
	w.ahead.Add(int64(d))
	w.ticks++
	w.edit(cj, func(cj *pbatchv1.CronJob) {
		cj.Spec.JobTemplate.Annotations = map[string]string{"tick": fmt.Sprint(w.ticks)}
	})
}

func (w *cronWorld) edit(cj *pbatchv1.CronJob, change func(*pbatchv1.CronJob)) {
	w.Helper()
	w.eventually("the CronJob takes the change", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(cj), cj); err != nil {
			return err
		}
		change(cj)
		return w.Update(w.ctx, cj)
	})
	w.settle(cj)
}

// jobs are those of the CronJob, by name.
func (w *cronWorld) jobs(cj *pbatchv1.CronJob) map[string]*pbatchv1.Job {
	w.Helper()
	var list pbatchv1.JobList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
	out := map[string]*pbatchv1.Job{}
	for i := range list.Items {
		if metav1.IsControlledBy(&list.Items[i], cj) && list.Items[i].DeletionTimestamp == nil {
			out[list.Items[i].Name] = &list.Items[i]
		}
	}
	return out
}

// run waits for the run of the loop's present hour, and returns its job.
func (w *cronWorld) run(cj *pbatchv1.CronJob) *pbatchv1.Job {
	w.Helper()
	at := w.now().Truncate(time.Hour)
	name := fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60)
	var job *pbatchv1.Job
	w.eventually("run "+name+" starts and stands in the status", func() error {
		if job = w.jobs(cj)[name]; job == nil {
			return errNotYet
		}
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(cj), cj))
		if last := cj.Status.LastScheduleTime; last == nil || !last.Time.Equal(at) {
			return fmt.Errorf("last schedule %v, want %s", last, at)
		}
		return nil
	})
	return job
}

// finish ends a job, as the Job loop would.
func (w *cronWorld) finish(job *pbatchv1.Job, outcome batchv1.JobConditionType) {
	w.Helper()
	w.eventually("job "+job.Name+" ends", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return err
		}
		at := metav1.NewTime(w.now().Truncate(time.Second))
		job.Status.StartTime = &at
		if outcome == batchv1.JobComplete {
			job.Status.CompletionTime = &at
		}
		job.Status.Conditions = []batchv1.JobCondition{{Type: outcome, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", LastTransitionTime: at, LastProbeTime: at}}
		return w.Status().Update(w.ctx, job)
	})
}

func (w *cronWorld) active(cj *pbatchv1.CronJob, want int) {
	w.Helper()
	w.eventually(fmt.Sprintf("%s has %d active runs", cj.Name, want), func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(cj), cj))
		if len(cj.Status.Active) != want || cj.Status.Columns["active"] != fmt.Sprint(want) {
			return fmt.Errorf("%d, column %q", len(cj.Status.Active), cj.Status.Columns["active"])
		}
		return nil
	})
}

// TestCronJobStory follows CronJobs through their lives.
func TestCronJobStory(t *testing.T) {
	w := newCronWorld(t, nil)
	cj := w.cronJob("tidy", func(cj *pbatchv1.CronJob) {
		cj.Spec.TimeZone = new("Etc/UTC")
		cj.Spec.JobTemplate.Labels = map[string]string{"team": "night"}
		cj.Spec.SuccessfulJobsHistoryLimit, cj.Spec.FailedJobsHistoryLimit = new(int32(2)), new(int32(1))
	})
	if n := len(w.jobs(cj)); n != 0 {
		t.Fatalf("%d jobs before the first time", n)
	}
	if c, _ := condition.Meta.Get(cj.Status.Conditions, pcorev1.ConditionReady); c.Status != corev1.ConditionTrue || c.Reason != "Scheduled" {
		t.Errorf("conditions %+v", cj.Status.Conditions)
	}
	w.pass(cj, time.Hour)
	job := w.run(cj)
	w.active(cj, 1)
	if job.Labels["team"] != "night" || job.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != w.now().UTC().Truncate(time.Hour).Format(time.RFC3339) {
		t.Errorf("labels %v, annotations %v", job.Labels, job.Annotations)
	}
	for _, outcome := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailed, batchv1.JobComplete} {
		w.finish(job, outcome)
		w.active(cj, 0)
		w.pass(cj, time.Hour)
		job = w.run(cj)
	}
	w.eventually("the history keeps two succeeded runs and a failed one beside the active", func() error {
		if n := len(w.jobs(cj)); n != 4 {
			return fmt.Errorf("%d jobs", n)
		}
		return nil
	})
	if cj.Status.LastSuccessfulTime == nil {
		t.Error("no lastSuccessfulTime")
	}
	w.events("SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete")

	w.edit(cj, func(cj *pbatchv1.CronJob) { cj.Spec.Suspend = new(true) })
	w.pass(cj, time.Hour)
	if n := len(w.jobs(cj)); n != 4 {
		t.Errorf("%d jobs while suspended, want 4", n)
	}
	w.edit(cj, func(cj *pbatchv1.CronJob) { cj.Spec.Suspend = new(false) })
	w.run(cj) // the one that was missed

	w.must(w.Delete(w.ctx, cj))
	w.eventually("the jobs go with the CronJob", func() error {
		if n := len(w.jobs(cj)); n > 0 {
			return fmt.Errorf("%d jobs are left", n)
		}
		return nil
	})
}

// TestCronJobConcurrency: Forbid leaves a run out and makes up for it, Replace puts the new run in the old one's place.
func TestCronJobConcurrency(t *testing.T) {
	w := newCronWorld(t, nil)
	forbid := w.cronJob("forbid", func(cj *pbatchv1.CronJob) { cj.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent })
	replace := w.cronJob("replace", func(cj *pbatchv1.CronJob) { cj.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent })
	w.pass(forbid, time.Hour)
	first := w.run(forbid)
	w.pass(replace, 0)
	old := w.run(replace)

	w.pass(forbid, time.Hour)
	w.events("JobAlreadyActive")
	if n := len(w.jobs(forbid)); n != 1 {
		t.Fatalf("%d jobs with Forbid, want 1", n)
	}
	w.finish(first, batchv1.JobComplete)
	w.run(forbid)

	w.pass(replace, 0)
	w.run(replace)
	if w.jobs(replace)[old.Name] != nil {
		t.Error("the replaced run is still there")
	}
	w.active(replace, 1)

	// A job by hand is nobody's run: it holds nothing up, and isn't listed.
	byHand := &pbatchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: "by-hand", Namespace: w.namespace, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(replace, pbatchv1.GroupVersion.WithKind("CronJob"))},
	}}
	byHand.Spec = *replace.Spec.JobTemplate.Spec.DeepCopy()
	w.must(w.Create(w.ctx, byHand))
	w.events("UnexpectedJob")
	w.pass(replace, time.Hour)
	w.run(replace)
	if w.jobs(replace)["by-hand"] == nil {
		t.Error("the job by hand was replaced")
	}
	w.active(replace, 1)
}

// TestCronJobFaults: with every write failing, getting lost and meeting a conflict, and the loop being restarted in between, each run
// starts once and the history is kept.
func TestCronJobFaults(t *testing.T) {
	f := newFaults()
	w := newCronWorld(t, f.wrap)
	cj := w.cronJob("tidy", func(cj *pbatchv1.CronJob) { cj.Spec.SuccessfulJobsHistoryLimit = new(int32(1)) })
	uids := map[string]string{}
	for range 4 {
		w.pass(cj, time.Hour)
		job := w.run(cj)
		if old, again := uids[job.Name]; again && old != string(job.UID) {
			t.Errorf("run %s was started twice", job.Name)
		}
		uids[job.Name] = string(job.UID)
		w.restart()
		w.finish(job, batchv1.JobComplete)
		w.active(cj, 0)
	}
	w.eventually("one run stays", func() error {
		if n := len(w.jobs(cj)); n != 1 {
			return fmt.Errorf("%d jobs", n)
		}
		return nil
	})
	for _, verb := range []string{"create *v1.Job", "delete *v1.Job", "update status *v1.CronJob"} {
		if f.struck[verb] == 0 {
			t.Errorf("no fault struck %q; struck were %v", verb, f.struck)
		}
	}
}

// TestCronJobBadInput: what admission can tell is refused in one sentence; what it can't makes the CronJob Stalled.
func TestCronJobBadInput(t *testing.T) {
	w := newCronWorld(t, nil)
	for what, test := range map[string]struct {
		change func(*pbatchv1.CronJobSpec)
		says   string
	}{
		"a bad line":            {func(s *pbatchv1.CronJobSpec) { s.Schedule = "60 * * * *" }, "the minute in the schedule, its first field, must be *, or numbers from 0 to 59"},
		"a bad month":           {func(s *pbatchv1.CronJobSpec) { s.Schedule = "0 0 1 foo *" }, "the month in the schedule, its fourth field"},
		"four fields":           {func(s *pbatchv1.CronJobSpec) { s.Schedule = "0 0 * *" }, "schedule needs five fields"},
		"a backward range":      {func(s *pbatchv1.CronJobSpec) { s.Schedule = "30-10 * * * *" }, "a range in the schedule runs backwards"},
		"a backward weekday":    {func(s *pbatchv1.CronJobSpec) { s.Schedule = "0 0 * * FRI-MON" }, "a range in the schedule runs backwards"},
		"a backward month":      {func(s *pbatchv1.CronJobSpec) { s.Schedule = "0 0 1 11-FEB *" }, "a range in the schedule runs backwards"},
		"an unknown zone":       {func(s *pbatchv1.CronJobSpec) { s.TimeZone = new("Europe/Atlantis") }, "unknown time zone Europe/Atlantis"},
		"a zone in the line":    {func(s *pbatchv1.CronJobSpec) { s.Schedule = "CRON_TZ=UTC 0 0 * * *" }, "a time zone belongs into timeZone"},
		"the machine's zone":    {func(s *pbatchv1.CronJobSpec) { s.TimeZone = new("local") }, "timeZone must be a name of the IANA time zone database"},
		"a duration of nothing": {func(s *pbatchv1.CronJobSpec) { s.Schedule = "@every 1x" }, "schedule has an unknown macro"},
	} {
		cj := &pbatchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "bad", Namespace: w.namespace}}
		cj.Spec.Schedule = "@daily"
		cj.Spec.JobTemplate.Spec.Template = template(nil, "image:1")
		cj.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		test.change(&cj.Spec)
		if err := w.Create(w.ctx, cj); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v; want a refusal with %q", what, err, test.says)
		}
	}
	cj := w.cronJob("never", func(cj *pbatchv1.CronJob) { cj.Spec.Schedule = "0 0 30 2 *" })
	c, _ := condition.Meta.Get(cj.Status.Conditions, pcorev1.ConditionStalled)
	if c.Reason != "InvalidSchedule" || !strings.Contains(c.Message, "names no day that exists") {
		t.Errorf("conditions %+v", cj.Status.Conditions)
	}
	w.events("InvalidSchedule")
}

// events waits for events of those reasons in the namespace.
func (w *world) events(reasons ...string) {
	w.Helper()
	w.eventually("events "+strings.Join(reasons, ", "), func() error {
		var list eventsv1.EventList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		seen := map[string]bool{}
		for i := range list.Items {
			seen[list.Items[i].Reason] = true
		}
		for _, reason := range reasons {
			if !seen[reason] {
				return fmt.Errorf("no event %s in %v", reason, seen)
			}
		}
		return nil
	})
}
