// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// replicaWorkers is how many owners are looked at in parallel.
const replicaWorkers = 8

// ReplicaKind is what a ReplicaLoop has to know of a kind that keeps a number of equal pods. The decisions stay with the kind's
// controller: Plan and Status are its plan.go and status.go.
type ReplicaKind[T client.Object] struct {
	// Name is the controller's.
	Name string
	GVK  schema.GroupVersionKind
	// New and NewList make an empty object and list.
	New     func() T
	NewList func() client.ObjectList
	// Selector returns the owner's selector.
	Selector func(owner T) (labels.Selector, error)
	// Template is what pods are made from; only asked when Plan wants one.
	Template func(owner T) *pcorev1.PodTemplateSpec
	// Colocated counts for each node the active pods of the same application; nil: the owner's own.
	Colocated func(ctx context.Context, s *ReplicaScope[T]) (map[string]int, error)
	// Plan says what to do. It must be pure.
	Plan func(s *ReplicaScope[T]) workload.Change
	// Status returns a copy of the owner with the status that it should have, and how soon that must be written. failure is what carrying the plan
	// out came to. wait is when time alone changes the status; 0 means never. It must be pure.
	Status func(s *ReplicaScope[T], failure error) (after T, urgency workload.Urgency, wait time.Duration)
	// Tell is told the owner as it is and with the status that it should have, before and after that is written; written says whether it is. May be
	// nil.
	Tell func(before, after T, written bool)
}

// ReplicaScope is all that one look at an owner of equal pods knows.
type ReplicaScope[T client.Object] struct {
	Owner    T
	Selector labels.Selector
	// Pods are the owner's own, ended and deleted ones included.
	Pods []*pcorev1.Pod
	// Foreign are names that pods of others hold.
	Foreign map[string]bool
	// Colocated says how many active pods of the same application each node holds.
	Colocated map[string]int
	Now       time.Time
}

// ReplicaLoop is the shell that ReplicaSet and ReplicationController share: it gathers the pods, adopting and releasing, has the kind plan,
// carries the plan out, and writes the status if it changed.
type ReplicaLoop[T client.Object] struct {
	kind   ReplicaKind[T]
	client client.Client
	live   client.Reader
	// Pods makes and deletes the pods, and remembers it until the cache shows it.
	Pods   *PodSet
	status *StatusWriter[T]
	now    func() time.Time
}

// NewReplicaLoop makes a loop. c reads from a cache that has AddIndexes' indexes; live reads past the cache.
func NewReplicaLoop[T client.Object](c client.Client, live client.Reader, kind ReplicaKind[T]) *ReplicaLoop[T] {
	return &ReplicaLoop[T]{
		kind: kind, client: c, live: live, now: time.Now,
		Pods: NewPodSet(c, live), status: NewStatusWriter[T](c, StatusWindow),
	}
}

// SetupWithManager adds the loop to the manager.
func (l *ReplicaLoop[T]) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named(l.kind.Name).
		For(l.kind.New(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&pcorev1.Pod{}, Owned[*pcorev1.Pod]{
			Owner: l.kind.GVK, DelayOf: l.Pods.Delay, Matters: workload.Matters, Adopters: l.adopters, Own: l.Pods.Own,
		}).
		Watches(l.kind.New(), Gone(l.status.Forget, l.Pods.Forget)).
		WithOptions(controller.Options{MaxConcurrentReconciles: replicaWorkers, RateLimiter: Backoff()}).
		Complete(l)
}

// Reconcile makes or deletes the pods that one owner lacks or has too many of, and reports.
func (l *ReplicaLoop[T]) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := l.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	again, applyErr := l.apply(ctx, s, l.kind.Plan(s))
	wait, reportErr := l.report(ctx, s, applyErr)
	switch {
	case applyErr != nil:
		return ctrl.Result{}, fmt.Errorf("keeping the pods: %w", applyErr)
	case apierrors.IsConflict(reportErr):
		return ctrl.Result{RequeueAfter: PodDelay}, nil // the cache will have caught up
	case reportErr != nil:
		return ctrl.Result{}, fmt.Errorf("writing the status: %w", client.IgnoreNotFound(reportErr))
	case again:
		return ctrl.Result{RequeueAfter: PodDelay}, nil
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// gather reads the owner and its pods, after adopting and releasing. A nil scope means that there is nothing to do.
func (l *ReplicaLoop[T]) gather(ctx context.Context, key types.NamespacedName) (*ReplicaScope[T], error) {
	cached := l.kind.New()
	if err := l.client.Get(ctx, key, cached, client.UnsafeDisableDeepCopy); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	owner := l.status.Freshest(cached)
	selector, err := l.kind.Selector(owner)
	if err != nil {
		return nil, reconcile.TerminalError(fmt.Errorf("reading the selector: %w", err))
	}
	s := &ReplicaScope[T]{Owner: owner, Selector: selector, Now: l.now()}
	all, err := l.Pods.List(ctx, owner, s.Now)
	if err != nil {
		return nil, err
	}
	s.Pods, err = Claim(ctx, l.client, l.live, owner, l.kind.GVK, workload.ClaimObjects(owner, selector, all))
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.Foreign = l.Pods.Foreign(owner.GetUID())
	s.Colocated = map[string]int{}
	if l.kind.Colocated != nil {
		s.Colocated, err = l.kind.Colocated(ctx, s)
		return s, err
	}
	workload.CountByNode(s.Colocated, s.Pods)
	return s, nil
}

// apply carries the plan out and lays what came of it over the scope's pods. again means that it should be planned anew soon.
func (l *ReplicaLoop[T]) apply(ctx context.Context, s *ReplicaScope[T], change workload.Change) (again bool, err error) {
	switch {
	case len(change.Create) > 0:
		var made int
		made, err = l.Pods.Create(ctx, s.Owner, l.kind.GVK, l.kind.Template(s.Owner), change.Create)
		again = made < len(change.Create) || made == workload.Burst
	case len(change.Delete) > 0:
		err = l.Pods.Delete(ctx, s.Owner.GetUID(), change.Delete)
		again = len(change.Delete) == workload.Burst
	default:
		return false, nil
	}
	s.Pods = l.Pods.Own.Relay(s.Owner.GetUID(), s.Pods)
	return again, err
}

// report writes the status if it changed. wait is when to look again.
func (l *ReplicaLoop[T]) report(ctx context.Context, s *ReplicaScope[T], failure error) (wait time.Duration, err error) {
	after, urgency, wait := l.kind.Status(s, failure)
	l.tell(s.Owner, after, urgency == workload.Same)
	if urgency == workload.Same {
		return wait, nil
	}
	if urgency == workload.Counting {
		if delay := l.status.Delay(s.Owner.GetUID(), s.Now); delay > 0 {
			if wait == 0 {
				return delay, nil
			}
			return min(wait, delay), nil
		}
	}
	if err := l.status.Write(ctx, after, s.Now); err != nil {
		return wait, err
	}
	l.tell(s.Owner, after, true)
	return wait, nil
}

func (l *ReplicaLoop[T]) tell(before, after T, written bool) {
	if l.kind.Tell != nil {
		l.kind.Tell(before, after, written)
	}
}

// adopters returns the owners whose selector matches an orphaned pod.
func (l *ReplicaLoop[T]) adopters(ctx context.Context, pod *pcorev1.Pod) []reconcile.Request {
	list := l.kind.NewList()
	if err := l.client.List(ctx, list, client.InNamespace(pod.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list who might adopt a pod", "kind", l.kind.GVK.Kind, "pod", client.ObjectKeyFromObject(pod))
		return nil
	}
	var out []reconcile.Request
	err := meta.EachListItem(list, func(obj runtime.Object) error {
		owner, ok := obj.(T)
		if !ok {
			return fmt.Errorf("a %T holds a %T", list, obj)
		}
		if selector, err := l.kind.Selector(owner); err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(owner)})
		}
		return nil
	})
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to go through who might adopt a pod", "kind", l.kind.GVK.Kind)
	}
	return out
}
