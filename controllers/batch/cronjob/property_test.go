// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"context"
	"errors"
	"fmt"
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
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// model is an API server with a history, a cache that shows the state after some prefix of it, and a clock that jumps.
type model struct {
	t       *rapid.T
	scheme  *runtime.Scheme
	truth   client.WithWatch
	history []state
	cached  map[string]client.Object
	seen    int
	// budget is how many writes the controller makes before it dies; fate what happens to its next write.
	budget int
	fate   string
	now    time.Time
	r      *Reconciler
	uids   int
	// started are the names of all jobs that were ever made, with their UIDs.
	started map[string]types.UID
	policy  batchv1.ConcurrencyPolicy
}

// state is what became of an object by one write.
type state struct {
	key string
	obj client.Object
	end bool
}

var errCrash = errors.New("the controller died")

var tidy = types.NamespacedName{Namespace: "test", Name: "tidy"}

func newModel(t *rapid.T) *model {
	m := &model{
		t: t, scheme: runtime.NewScheme(), cached: map[string]client.Object{}, budget: 1 << 30, now: ten, started: map[string]types.UID{},
		policy: rapid.SampledFrom([]batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}).Draw(t, "policy"),
	}
	m.must(pbatchv1.AddToScheme(m.scheme))
	m.truth = m.builder().WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			m.uids++
			obj.SetUID(types.UID(fmt.Sprint("uid-", m.uids)))
			return m.write(ctx, c, obj, func() error { return c.Create(ctx, obj, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return m.write(ctx, c, obj, func() error { return c.Delete(ctx, obj, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.Update(ctx, obj, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	}).Build()
	cj := &pbatchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "tidy", Namespace: "test", Generation: 1, CreationTimestamp: metav1.NewTime(ten)}}
	cj.Spec = pbatchv1.CronJobSpec{
		Schedule:          rapid.SampledFrom([]string{"* * * * *", "*/5 * * * *", "@every 1m", "@every 90s"}).Draw(t, "schedule"),
		ConcurrencyPolicy: m.policy, SuccessfulJobsHistoryLimit: new(rapid.Int32Range(0, 2).Draw(t, "history")), FailedJobsHistoryLimit: new(int32(1)),
	}
	m.must(m.truth.Create(context.Background(), cj))
	m.restart()
	return m
}

func (m *model) builder() *fake.ClientBuilder {
	return fake.NewClientBuilder().WithScheme(m.scheme).
		WithStatusSubresource(&pbatchv1.CronJob{}, &pbatchv1.Job{}).
		WithIndex(&pbatchv1.Job{}, kube.ByController, kube.ControllerIndex)
}

// write carries a write out as its fate wants it, and adds what came of it to the history.
func (m *model) write(ctx context.Context, c client.Reader, obj client.Object, do func() error) error {
	if m.budget <= 0 {
		return errCrash
	}
	m.budget--
	fate := m.fate
	m.fate = ""
	switch fate {
	case "fails":
		return apierrors.NewInternalError(errors.New("injected"))
	case "conflicts":
		return apierrors.NewConflict(schema.GroupResource{Resource: "injected"}, obj.GetName(), errors.New("injected"))
	}
	if err := do(); err != nil {
		return err
	}
	now, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		m.t.Fatalf("%T is no object", obj)
	}
	err := c.Get(ctx, client.ObjectKeyFromObject(obj), now)
	m.history = append(m.history, state{key: fmt.Sprintf("%T %s", obj, obj.GetName()), obj: now, end: apierrors.IsNotFound(err)})
	if job, ok := obj.(*pbatchv1.Job); ok {
		if old, again := m.started[job.Name]; again && old != job.UID {
			m.t.Fatalf("run %s was started twice", job.Name)
		}
		m.started[job.Name] = job.UID
	}
	if fate == "is lost" {
		return apierrors.NewTimeoutError("injected", 0)
	}
	return nil
}

// see lets the cache show n more writes, and the watch tell about ended jobs.
func (m *model) see(n int) {
	for ; n > 0 && m.seen < len(m.history); n-- {
		e := m.history[m.seen]
		m.seen++
		if !e.end {
			m.cached[e.key] = e.obj
			continue
		}
		delete(m.cached, e.key)
		if ref := metav1.GetControllerOf(e.obj); ref != nil {
			m.r.own.Gone(ref.UID, e.obj.GetUID())
		}
	}
}

// split is the controller's client: it reads from the cache and writes to the API server.
type split struct {
	client.Client
	m *model
}

func (s split) cache() client.Reader {
	b := s.m.builder()
	for _, obj := range s.m.cached {
		b = b.WithObjects(obj.DeepCopyObject().(client.Object)) //nolint:forcetypeassert // it was one
	}
	return b.Build()
}

func (s split) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return s.cache().Get(ctx, key, obj, opts...)
}

func (s split) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return s.cache().List(ctx, list, opts...)
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(split{m.truth, m}, m.truth, Options{Events: &events.FakeRecorder{}, Now: func() time.Time { return m.now }, Local: time.UTC})
	m.see(len(m.history))
}

// reconcile lets the controller look once; only injected errors are expected.
func (m *model) reconcile() {
	before := m.active()
	_, err := m.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: tidy})
	if err != nil && !errors.Is(err, errCrash) && !apierrors.IsInternalError(err) && !apierrors.IsTimeout(err) && !apierrors.IsConflict(err) {
		m.t.Fatalf("reconciling: %v", err)
	}
	if m.policy == batchv1.ForbidConcurrent && len(m.active()) > max(1, len(before)) {
		m.t.Fatalf("%d runs overlap", len(m.active()))
	}
}

func (m *model) jobs() []*pbatchv1.Job {
	var list pbatchv1.JobList
	m.must(m.truth.List(context.Background(), &list))
	var out []*pbatchv1.Job
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
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

func (m *model) cronJob() *pbatchv1.CronJob {
	var cj pbatchv1.CronJob
	m.must(m.truth.Get(context.Background(), tidy, &cj))
	return &cj
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// finish ends a job.
func (m *model) finish(job *pbatchv1.Job, outcome batchv1.JobConditionType) {
	at := metav1.NewTime(m.now.Truncate(time.Second))
	job.Status.StartTime = &at
	if outcome == batchv1.JobComplete {
		job.Status.CompletionTime = &at
	}
	job.Status.Conditions = []batchv1.JobCondition{{Type: outcome, Status: corev1.ConditionTrue}}
	m.must(m.truth.Status().Update(context.Background(), job))
}

// step lets one thing happen.
func (m *model) step() {
	switch rapid.SampledFrom([]string{"reconcile", "reconcile", "see", "see", "time", "time", "crash", "fault", "end", "end"}).Draw(m.t, "event") {
	case "reconcile":
		m.reconcile()
	case "see":
		m.see(rapid.IntRange(1, 3).Draw(m.t, "writes"))
	case "time":
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 400).Draw(m.t, "seconds")) * time.Second)
	case "crash":
		m.budget = rapid.IntRange(0, 3).Draw(m.t, "writes before the crash")
		m.reconcile()
		m.budget = 1 << 30
		m.restart()
	case "fault":
		m.fate = rapid.SampledFrom([]string{"fails", "is lost", "conflicts"}).Draw(m.t, "fate")
		m.reconcile()
		m.fate = ""
	case "end":
		if active := m.active(); len(active) > 0 {
			job := active[rapid.IntRange(0, len(active)-1).Draw(m.t, "job")]
			m.finish(job, rapid.SampledFrom([]batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed}).Draw(m.t, "outcome"))
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
			m.see(len(m.history))
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
