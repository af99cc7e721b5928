// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podgc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;patch;delete

const (
	// nodeFinalizer is placement's; it stands here again because controllers don't know each other.
	nodeFinalizer = "pinnace.dev/node"
	// retryDelay is how long a look waits that met a conflict.
	retryDelay = 50 * time.Millisecond
)

// Options say how patient the controller is.
type Options struct {
	// Quarantine is how long a node must be missing before its pods are ended; 40 s when zero, as upstream.
	Quarantine time.Duration
}

// Reconciler looks after the pods of missing nodes. A request names a node.
type Reconciler struct {
	client client.Client
	live   client.Reader
	opts   Options
	now    func() time.Time

	mu      sync.Mutex
	missing map[string]time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes; live reads past the cache.
func NewReconciler(c client.Client, live client.Reader, o Options) *Reconciler {
	if o.Quarantine == 0 {
		o.Quarantine = 40 * time.Second
	}
	return &Reconciler{client: c, live: live, opts: o, now: time.Now, missing: map[string]time.Time{}}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	byName := func(name string, q kube.Queue) {
		q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("pod-gc").
		Watches(&pcorev1.Node{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { byName(e.Object.GetName(), q) },
			DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) { byName(e.Object.GetName(), q) },
		}).
		Watches(&pcorev1.Pod{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) {
				if pod, ok := e.Object.(*pcorev1.Pod); ok && pod.Spec.NodeName != "" {
					byName(pod.Spec.NodeName, q)
				}
			},
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
				before, ok := e.ObjectOld.(*pcorev1.Pod)
				after, ok2 := e.ObjectNew.(*pcorev1.Pod)
				if ok && ok2 && before.Spec.NodeName == "" && after.Spec.NodeName != "" {
					byName(after.Spec.NodeName, q)
				}
			},
		}).
		Complete(r)
}

// Reconcile ends the pods of one node, if it has been missing for long enough.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	wait, err := r.quarantine(ctx, req.Name)
	if err != nil || wait != 0 {
		return ctrl.Result{RequeueAfter: max(0, wait)}, err
	}
	var pods pcorev1.PodList
	if err := r.client.List(ctx, &pods, client.MatchingFields{kube.ByNode: req.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing the pods of node %s: %w", req.Name, err)
	}
	again := false
	for i := range pods.Items {
		err := r.end(ctx, &pods.Items[i])
		if apierrors.IsConflict(err) {
			again = true
			continue
		}
		if client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, err
		}
	}
	if again {
		return ctrl.Result{RequeueAfter: retryDelay}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.missing, req.Name)
	return ctrl.Result{}, nil
}

// quarantine returns 0 when the node is missing for good, a negative number when it is there, and else how long to wait.
func (r *Reconciler) quarantine(ctx context.Context, name string) (time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.client.Get(ctx, types.NamespacedName{Name: name}, &pcorev1.Node{}, client.UnsafeDisableDeepCopy)
	switch {
	case err == nil:
		delete(r.missing, name)
		return -1, nil
	case !apierrors.IsNotFound(err):
		return 0, fmt.Errorf("reading node %s: %w", name, err)
	}
	since, ok := r.missing[name]
	if !ok {
		since = r.now()
		r.missing[name] = since
	}
	if left := since.Add(r.opts.Quarantine).Sub(r.now()); left > 0 {
		return left, nil
	}
	// The cache may be wrong; what follows can't be undone.
	if err := r.live.Get(ctx, types.NamespacedName{Name: name}, &pcorev1.Node{}); err == nil {
		return retryDelay, nil
	} else if !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("reading node %s: %w", name, err)
	}
	return 0, nil
}

// end takes the finalizer from a pod and deletes it. Deleting comes first: a pod that is terminating is already being replaced.
func (r *Reconciler) end(ctx context.Context, pod *pcorev1.Pod) error {
	if pod.Status.Phase == corev1.PodSucceeded && pod.DeletionTimestamp == nil && !slices.Contains(pod.Finalizers, nodeFinalizer) {
		return nil // it ended by itself and holds nothing
	}
	if pod.DeletionTimestamp == nil {
		if err := r.client.Delete(ctx, pod.DeepCopy(), client.Preconditions{UID: &pod.UID}); err != nil {
			return fmt.Errorf("deleting pod %s, whose node is gone: %w", pod.Name, err)
		}
	}
	i := slices.Index(pod.Finalizers, nodeFinalizer)
	if i < 0 {
		return nil
	}
	freed := pod.DeepCopy()
	freed.Finalizers = slices.Delete(freed.Finalizers, i, i+1)
	// No resource version: the deletion just changed it, and the finalizers of a pod whose node is gone have no other writer.
	if err := r.client.Patch(ctx, freed, client.MergeFrom(pod)); err != nil {
		return fmt.Errorf("taking the finalizer from pod %s, whose node is gone: %w", pod.Name, err)
	}
	ctrl.LoggerFrom(ctx).Info("Ended a pod whose node is gone", "pod", client.ObjectKeyFromObject(pod), "node", pod.Spec.NodeName)
	return nil
}
