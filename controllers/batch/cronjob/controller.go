// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=cronjobs,verbs=get;list;watch
// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=cronjobs/status,verbs=update
// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=cronjobs/finalizers,verbs=update
// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=jobs,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

var kind = pbatchv1.GroupVersion.WithKind("CronJob")

const (
	// jobDelay lets the changes of several jobs share one look at their CronJob.
	jobDelay = 20 * time.Millisecond
	// margin is how long after a scheduled time the look at it comes, so that a clock that is corrected meanwhile doesn't make it early.
	// Upstream's.
	margin = 100 * time.Millisecond
	// patience is the longest wait between two looks: a timer doesn't notice that the clock was set.
	patience = 10 * time.Minute
	// workers is how many CronJobs are looked at in parallel.
	workers = 4
)

// Options of the controller.
type Options struct {
	// Events takes what the user should be told; it defaults to the manager's recorder.
	Events events.EventRecorder
	// Now is the clock; it defaults to time.Now.
	Now func() time.Time
	// Local is the zone of schedules that name none; it defaults to the process's.
	Local *time.Location
}

// Reconciler starts the runs of CronJobs.
type Reconciler struct {
	client client.Client
	live   client.Reader
	status *kube.StatusWriter[*pbatchv1.CronJob]
	own    *kube.Overlay[*pbatchv1.Job]
	memory memory
	Options
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader, o Options) *Reconciler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Local == nil {
		o.Local = time.Local
	}
	return &Reconciler{
		client: c, live: live, Options: o,
		status: kube.NewStatusWriter[*pbatchv1.CronJob](c, 0),
		own:    kube.NewOverlay(copyJob),
	}
}

// copyJob copies a job's top level and its metadata, and shares the rest.
func copyJob(job *pbatchv1.Job) *pbatchv1.Job {
	out := *job
	job.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if r.Events == nil {
		r.Events = mgr.GetEventRecorder("pinnace-cronjob")
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("cronjob").
		For(&pbatchv1.CronJob{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&pbatchv1.CronJob{}, kube.Gone(r.status.Forget, r.own.Forget, r.memory.forget)).
		Watches(&pbatchv1.Job{}, kube.Owned[*pbatchv1.Job]{Owner: kind, Delay: jobDelay, Matters: matters, Own: r.own}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Complete(r)
}

// matters says whether a change of a job can change what its CronJob does or reports.
func matters(before, after *pbatchv1.Job) bool {
	return isFinished(before) != isFinished(after) || (before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) ||
		!before.Status.CompletionTime.Equal(after.Status.CompletionTime) ||
		!equality.Semantic.DeepEqual(before.OwnerReferences, after.OwnerReferences)
}

// Reconcile starts a run of one CronJob if it is time, tidies its history, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	p := makePlan(s)
	r.tell(s.cj, p.notes)
	failure, applyErr := r.apply(ctx, s, p)
	reportErr := r.report(ctx, s, failure)
	switch {
	case applyErr != nil:
		return ctrl.Result{}, fmt.Errorf("running the schedule: %w", applyErr)
	case apierrors.IsConflict(reportErr):
		return ctrl.Result{RequeueAfter: jobDelay}, nil // the cache will have caught up
	case reportErr != nil:
		return ctrl.Result{}, client.IgnoreNotFound(reportErr)
	case p.again:
		return ctrl.Result{RequeueAfter: jobDelay}, nil
	case p.next.IsZero():
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: min(p.next.Sub(s.now)+margin, patience)}, nil
}

// gather reads the CronJob and its jobs. A nil scope means that there is nothing to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached pbatchv1.CronJob
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	cj := r.status.Freshest(&cached)
	s := &scope{cj: cj, now: r.Now(), foreign: r.memory.takenNames(cj.UID)}
	var list pbatchv1.JobList
	err := r.client.List(ctx, &list, client.InNamespace(cj.Namespace), client.MatchingFields{kube.ByController: string(cj.UID)}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("listing jobs: %w", err)
	}
	jobs := make([]*pbatchv1.Job, len(list.Items))
	for i := range list.Items {
		jobs[i] = &list.Items[i]
	}
	s.jobs = r.own.Apply(cj.UID, jobs, time.Now())
	if err := r.lookFor(ctx, s); err != nil {
		return nil, err
	}
	s.read(r.Local)
	return s, nil
}

// read understands the schedule, and finds where the search for missed times begins.
func (s *scope) read(local *time.Location) {
	s.table, s.fault = readSchedule(&s.cj.Spec, local)
	if s.fault != nil {
		return
	}
	s.since = scheduleSince(s.cj, s.now)
	if last := lastSchedule(s.cj, s.jobs); last != nil {
		s.since = later(s.since, last.Time)
	}
	if s.table.next(s.since, s.now).IsZero() {
		s.fault = &fault{reasonInvalidSchedule, fmt.Sprintf("The schedule %q names no day that exists: change spec.schedule.", s.cj.Spec.Schedule)}
	}
}

// lookFor reads the jobs that the status lists as active and the cache doesn't show: a run that is forgotten would let another one
// start beside it.
func (r *Reconciler) lookFor(ctx context.Context, s *scope) error {
	for _, ref := range s.cj.Status.Active {
		if slices.ContainsFunc(s.jobs, func(job *pbatchv1.Job) bool { return job.UID == ref.UID }) {
			continue
		}
		var job pbatchv1.Job
		err := r.live.Get(ctx, client.ObjectKey{Namespace: s.cj.Namespace, Name: ref.Name}, &job)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("looking for active job %s: %w", ref.Name, err)
		}
		if err == nil && job.UID == ref.UID && metav1.IsControlledBy(&job, s.cj) {
			s.jobs = append(s.jobs, &job)
		}
	}
	return r.resolveDoubt(ctx, s)
}

// resolveDoubt finds out what became of a creation that failed: it may have been carried out and its answer lost, and the cache needs a
// while to show the job. A later run with Forbid must not start beside it.
func (r *Reconciler) resolveDoubt(ctx context.Context, s *scope) error {
	name := r.memory.doubted(s.cj.UID)
	if name == "" {
		return nil
	}
	var job pbatchv1.Job
	err := r.live.Get(ctx, client.ObjectKey{Namespace: s.cj.Namespace, Name: name}, &job)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("looking for job %s, which may have been made: %w", name, err)
	}
	r.memory.setDoubt(s.cj.UID, "")
	known := slices.ContainsFunc(s.jobs, func(other *pbatchv1.Job) bool { return other.UID == job.UID })
	if err == nil && !known && metav1.IsControlledBy(&job, s.cj) {
		r.own.Created(s.cj.UID, &job, time.Now())
		s.jobs = append(s.jobs, &job)
	}
	return nil
}

// apply carries the plan out and lays what came of it over the scope's jobs.
func (r *Reconciler) apply(ctx context.Context, s *scope, p plan) (*fault, error) {
	for _, job := range p.remove {
		if job.DeletionTimestamp != nil {
			continue
		}
		uid := job.UID
		err := r.client.Delete(ctx, copyJob(job), client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if apierrors.IsConflict(err) {
			return nil, fmt.Errorf("deleting job %s: %w", job.Name, err) // another one has the name, or somebody was faster: look again
		}
		if client.IgnoreNotFound(err) != nil {
			r.tell(s.cj, []note{{corev1.EventTypeWarning, reasonFailedDelete, fmt.Sprintf("Error deleting job: %v", err), err.Error()}})
			return &fault{reasonFailedDelete, fmt.Sprintf("Job %s can't be deleted: %v.", job.Name, err)}, fmt.Errorf("deleting job %s: %w", job.Name, err)
		}
		r.own.Deleted(s.cj.UID, job, time.Now())
		s.drop(job.UID)
		r.tell(s.cj, []note{{corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job " + job.Name, string(job.UID)}})
	}
	if p.start.IsZero() {
		return nil, nil
	}
	job := makeJob(s.cj, p.start)
	err := r.client.Create(ctx, job)
	switch {
	case err == nil:
		r.tell(s.cj, []note{{corev1.EventTypeNormal, "SuccessfulCreate", "Created job " + job.Name, string(job.UID)}})
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil, nil // nothing can be made there any more
	case apierrors.IsAlreadyExists(err):
		return nil, r.recognise(ctx, s, job.Name)
	default:
		r.memory.setDoubt(s.cj.UID, job.Name)
		r.tell(s.cj, []note{{corev1.EventTypeWarning, reasonFailedCreate, fmt.Sprintf("Error creating job: %v", err), err.Error()}})
		return &fault{reasonFailedCreate, fmt.Sprintf("Job %s can't be made: %v.", job.Name, err)}, fmt.Errorf("creating job %s: %w", job.Name, err)
	}
	r.own.Created(s.cj.UID, job, time.Now())
	s.jobs = append(s.jobs, job)
	return nil, nil
}

// recognise finds out who holds the name of a run: its own job, which the cache doesn't show yet, is as good as a new one.
func (r *Reconciler) recognise(ctx context.Context, s *scope, name string) error {
	var job pbatchv1.Job
	if err := r.live.Get(ctx, client.ObjectKey{Namespace: s.cj.Namespace, Name: name}, &job); err != nil {
		return fmt.Errorf("reading job %s, which was there already: %w", name, err)
	}
	if !metav1.IsControlledBy(&job, s.cj) {
		s.foreign = r.memory.taken(s.cj.UID, name)
		return nil
	}
	r.own.Created(s.cj.UID, &job, time.Now())
	s.jobs = append(s.jobs, &job)
	return nil
}

func (s *scope) drop(uid types.UID) {
	s.jobs = slices.DeleteFunc(slices.Clone(s.jobs), func(job *pbatchv1.Job) bool { return job.UID == uid })
}

// report writes the status if it changed, and tells what it shows for the first time.
func (r *Reconciler) report(ctx context.Context, s *scope, failure *fault) error {
	status := makeStatus(s, failure)
	if equality.Semantic.DeepEqual(&s.cj.Status, &status) {
		return nil
	}
	cj := s.cj.DeepCopy()
	cj.Status = status
	if err := r.status.Write(ctx, cj, time.Now()); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	r.tell(s.cj, completed(s))
	if s.fault != nil {
		r.tell(s.cj, []note{{corev1.EventTypeWarning, s.fault.reason, s.fault.message, s.fault.message}})
	}
	return nil
}

// tell sends events that weren't sent yet.
func (r *Reconciler) tell(cj *pbatchv1.CronJob, notes []note) {
	for _, n := range notes {
		if r.memory.isNew(cj.UID, n) {
			r.Events.Eventf(cj, nil, n.kind, n.reason, "RunSchedule", "%s", n.message)
		}
	}
}
