// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/placement"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=jobs,verbs=get;list;watch
// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=jobs/status,verbs=update
// +kubebuilder:rbac:groups=batch.pinnace.dev,resources=jobs/finalizers,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch

var kind = pbatchv1.GroupVersion.WithKind("Job")

const (
	// statusWindow is the shortest time between two status writes that only count.
	statusWindow = 300 * time.Millisecond
	// workers is how many Jobs are looked at in parallel.
	workers = 8
)

// Reconciler runs the pods of Jobs.
type Reconciler struct {
	client client.Client
	live   client.Reader
	pods   *kube.PodSet
	status *kube.StatusWriter[*pbatchv1.Job]
	memory *memory
	now    func() time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader) *Reconciler {
	return &Reconciler{
		client: c, live: live, now: time.Now, memory: newMemory(),
		pods:   kube.NewPodSet(c, live),
		status: kube.NewStatusWriter[*pbatchv1.Job](c, statusWindow),
	}
}

// SetupWithManager adds the controller to the manager, and the one that looks after pods whose Job is gone.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("job").
		For(&pbatchv1.Job{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&pcorev1.Pod{}, kube.Owned[*pcorev1.Pod]{
			Owner: kind, DelayOf: r.pods.Delay, Matters: matters, Adopters: r.adopters, Own: r.pods.Own,
		}).
		Watches(&pcorev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.perNode), builder.WithPredicates(predicate.Funcs{UpdateFunc: nodeMatters})).
		Watches(&pbatchv1.Job{}, kube.Gone(r.status.Forget, r.pods.Forget, r.memory.Forget)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Complete(r)
	if err != nil {
		return err
	}
	return (&orphans{client: r.client}).setupWithManager(mgr)
}

// Reconcile takes one look at a Job.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	if isFinished(&s.job.Status) {
		return r.tidy(ctx, s)
	}
	d := makePlan(s)
	again, applyErr := r.apply(ctx, s, &d)
	wait, released, reportErr := r.report(ctx, s, &d, applyErr)
	switch {
	case applyErr != nil:
		return ctrl.Result{}, fmt.Errorf("keeping the pods: %w", applyErr)
	case apierrors.IsConflict(reportErr), errors.Is(reportErr, kube.ErrMoved):
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil // the cache will have caught up
	case reportErr != nil:
		return ctrl.Result{}, fmt.Errorf("counting the pods: %w", client.IgnoreNotFound(reportErr))
	case again || released:
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil
	}
	return ctrl.Result{RequeueAfter: soonest(wait, d.wait)}, nil
}

// gather reads the Job and its pods, after adopting and releasing. A nil scope means that there is nothing to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached pbatchv1.Job
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	job := r.status.Freshest(&cached)
	if by := job.Spec.ManagedBy; by != nil && *by != batchv1.JobControllerName {
		return nil, nil // somebody else's
	}
	selector, err := makeSelector(job)
	if err != nil {
		return nil, reconcile.TerminalError(fmt.Errorf("reading the selector: %w", err))
	}
	s := &scope{job: job, selector: selector, now: r.now()}
	all, err := r.pods.List(ctx, job, time.Now()) // the age of own writes, which goes by the machine's clock
	if err != nil {
		return nil, err
	}
	all = r.memory.Strip(job.UID, all, true)
	if isFinished(&job.Status) { // it neither adopts nor releases
		s.pods = workload.ClaimObjects(job, selector, all).Owned
		return s, nil
	}
	s.pods, err = kube.Claim(ctx, r.client, r.live, job, kind, workload.ClaimObjects(job, selector, all), batchv1.JobTrackingFinalizer)
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.foreign = r.pods.Foreign(job.UID)
	s.backoff = r.memory.Backoff(job.UID, s.pods)
	if perNode(job) {
		if s.nodes, err = r.matchNodes(ctx, job); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// matchNodes finds the nodes that the Job's pods belong on.
func (r *Reconciler) matchNodes(ctx context.Context, job *pbatchv1.Job) (nodeView, error) {
	var list pcorev1.NodeList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nodeView{}, fmt.Errorf("listing nodes: %w", err)
	}
	matcher := placement.NewNodeMatcher(&job.Spec.Template.Spec)
	out := nodeView{stay: map[string]bool{}}
	for i := range list.Items {
		node := &list.Items[i]
		if node.DeletionTimestamp != nil {
			continue
		}
		match := matcher.Match(node)
		if match.MayStart() {
			out.start = append(out.start, node.Name)
		}
		if match.Selected { // whom a taint drives away is not for a Job to say
			out.stay[node.Name] = true
		}
	}
	slices.Sort(out.start)
	return out, nil
}

// apply makes and deletes pods, and lays what came of it over the scope's pods. again means that it should be planned anew soon.
func (r *Reconciler) apply(ctx context.Context, s *scope, d *decision) (again bool, err error) {
	if len(d.kill) > 0 {
		err = r.pods.Delete(ctx, s.job.UID, d.kill)
	}
	if len(d.drop) > 0 {
		err = errors.Join(err, r.drop(ctx, s, d.drop))
		again = true
	}
	if len(d.create) > 0 {
		templates := makeTemplates(s.job, d.create)
		names := make([]string, 0, len(d.create))
		for _, want := range d.create {
			names = append(names, want.name)
		}
		var made int
		made, err = r.pods.CreateEach(ctx, s.job, kind, names, func(name string) *pcorev1.PodTemplateSpec { return templates[name] })
		again = made < len(d.create) || made == workload.Burst
	}
	s.pods = r.memory.Strip(s.job.UID, r.pods.Own.Relay(s.job.UID, s.pods), false)
	return again, err
}

// drop takes the finalizer from pods and deletes them. In this order nobody takes them for failures; a crash in between leaves pods that
// can't be counted, which are the first to be dropped at the next look. A pod that has changed since, which may mean that it ended, is
// left for the next look.
func (r *Reconciler) drop(ctx context.Context, s *scope, pods []*pcorev1.Pod) error {
	free, err := kube.Unfinalize(ctx, r.client, batchv1.JobTrackingFinalizer, pods, true)
	r.memory.Released(s.job.UID, free)
	if errors.Is(err, kube.ErrMoved) {
		err = nil
	}
	return errors.Join(err, r.pods.Delete(ctx, s.job.UID, free))
}

// report counts what ended, writes the status if it changed, and then takes the finalizers from what was counted. wait is when to look
// again; released means that there is more to write soon.
func (r *Reconciler) report(ctx context.Context, s *scope, d *decision, applyErr error) (wait time.Duration, released bool, err error) {
	a := takeAccount(s, d)
	status, wait := makeStatus(s, d, a, applyErr)
	urgency := compareStatus(&s.job.Status, &status)
	if urgency == counting {
		if delay := r.status.Delay(s.job.UID, s.now); delay > 0 {
			return soonest(wait, delay), false, nil
		}
	}
	if urgency != same {
		job := s.job.DeepCopy()
		job.Status = status
		if err := r.status.Write(ctx, job, s.now); err != nil {
			return wait, false, err
		}
	}
	r.memory.SetBackoff(s.job.UID, d.backoff)
	if len(a.release) == 0 {
		return wait, false, nil
	}
	free, err := kube.Unfinalize(ctx, r.client, batchv1.JobTrackingFinalizer, a.release, false)
	r.memory.Released(s.job.UID, free)
	return wait, true, err
}

// tidy looks after a finished Job: no pod keeps a finalizer, and the status tells of the latest spec.
func (r *Reconciler) tidy(ctx context.Context, s *scope) (ctrl.Result, error) {
	var left []*pcorev1.Pod
	for _, pod := range s.pods {
		if jobstate.IsTracked(pod) {
			left = append(left, pod)
		}
	}
	free, err := kube.Unfinalize(ctx, r.client, batchv1.JobTrackingFinalizer, left, false)
	r.memory.Released(s.job.UID, free)
	if err != nil && !errors.Is(err, kube.ErrMoved) {
		return ctrl.Result{}, err
	}
	if s.job.Status.ObservedGeneration != s.job.Generation {
		job := s.job.DeepCopy()
		job.Status.ObservedGeneration = job.Generation
		if err := r.status.Write(ctx, job, s.now); err != nil {
			return ctrl.Result{RequeueAfter: kube.PodDelay}, client.IgnoreNotFound(ignoreConflict(err))
		}
	}
	if len(left) > 0 {
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil
	}
	r.memory.Forget(s.job.UID)
	return ctrl.Result{}, nil
}

func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
