// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicationcontroller

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=replicationcontrollers,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=replicationcontrollers/status,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=replicationcontrollers/finalizers,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;create;patch;delete

var kind = pcorev1.GroupVersion.WithKind("ReplicationController")

const (
	// podDelay lets the changes of many pods share one look at their ReplicationController.
	podDelay = 20 * time.Millisecond
	// statusWindow is the shortest time between two status writes that only count.
	statusWindow = 300 * time.Millisecond
	// workers is how many ReplicationControllers are looked at in parallel.
	workers = 8
)

// Reconciler keeps the pods of ReplicationControllers.
type Reconciler struct {
	client client.Client
	live   client.Reader
	pods   *kube.PodSet
	status *kube.StatusWriter[*pcorev1.ReplicationController]
	now    func() time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader) *Reconciler {
	return &Reconciler{
		client: c, live: live, now: time.Now,
		pods:   kube.NewPodSet(c, live),
		status: kube.NewStatusWriter[*pcorev1.ReplicationController](c, statusWindow),
	}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("replicationcontroller").
		For(&pcorev1.ReplicationController{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&pcorev1.Pod{}, kube.Owned[*pcorev1.Pod]{
			Owner: kind, Delay: podDelay, Matters: workload.Matters, Adopters: r.adopters, Own: r.pods.Own,
		}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Complete(r)
}

// Reconcile makes or deletes the pods that one ReplicationController lacks or has too many of, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	change := makePlan(s)
	again, applyErr := r.apply(ctx, s, change)
	wait, reportErr := r.report(ctx, s, applyErr)
	switch {
	case applyErr != nil:
		return ctrl.Result{}, fmt.Errorf("keeping the pods: %w", applyErr)
	case apierrors.IsConflict(reportErr):
		return ctrl.Result{RequeueAfter: podDelay}, nil // the cache will have caught up
	case reportErr != nil:
		return ctrl.Result{}, fmt.Errorf("writing the status: %w", client.IgnoreNotFound(reportErr))
	case again:
		return ctrl.Result{RequeueAfter: podDelay}, nil
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// gather reads the ReplicationController and its pods, after adopting and releasing. A nil scope means that there is nothing to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached pcorev1.ReplicationController
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	rc := r.status.Freshest(&cached)
	selector := selectorOf(rc)
	s := &scope{rc: rc, selector: selector, now: r.now()}
	all, err := r.pods.List(ctx, rc, s.now)
	if err != nil {
		return nil, err
	}
	s.pods, err = kube.Claim(ctx, r.client, r.live, rc, kind, workload.ClaimObjects(rc, selector, all))
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.foreign = r.pods.Foreign(rc.UID)
	return s, nil
}

// apply carries the plan out and lays what came of it over the scope's pods. again means that it should be planned anew soon.
func (r *Reconciler) apply(ctx context.Context, s *scope, change workload.Change) (again bool, err error) {
	switch {
	case len(change.Create) > 0:
		var made int
		made, err = r.pods.Create(ctx, s.rc, kind, s.rc.Spec.Template, change.Create)
		again = made < len(change.Create) || made == workload.Burst
	case len(change.Delete) > 0:
		err = r.pods.Delete(ctx, s.rc.UID, change.Delete)
		again = len(change.Delete) == workload.Burst
	default:
		return false, nil
	}
	s.pods = r.pods.Own.Relay(s.rc.UID, s.pods)
	return again, err
}

// report writes the status if it changed. wait is when to look again.
func (r *Reconciler) report(ctx context.Context, s *scope, applyErr error) (wait time.Duration, err error) {
	status, wait := makeStatus(s, applyErr)
	urgency := compareStatus(&s.rc.Status, &status)
	if urgency == same {
		return wait, nil
	}
	if urgency == counting {
		if delay := r.status.Delay(s.rc.UID, s.now); delay > 0 {
			return soonest(wait, delay), nil
		}
	}
	rc := s.rc.DeepCopy()
	rc.Status = status
	return wait, r.status.Write(ctx, rc, s.now)
}

func soonest(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// adopters returns the ReplicationControllers whose selector matches an orphaned pod.
func (r *Reconciler) adopters(ctx context.Context, pod *pcorev1.Pod) []reconcile.Request {
	var list pcorev1.ReplicationControllerList
	if err := r.client.List(ctx, &list, client.InNamespace(pod.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list ReplicationControllers that might adopt a pod", "pod", client.ObjectKeyFromObject(pod))
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		selector := selectorOf(&list.Items[i])
		if !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}
