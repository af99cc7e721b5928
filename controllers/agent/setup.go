// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// reconcileMost bounds one look at a pod, which makes a sandbox and several containers at most.
const reconcileMost = 4 * time.Minute

// AddNode gives the Reconciler a node to run. It may be called before and after the manager has started.
func (r *Reconciler) AddNode(n Node) error {
	if n.Name == "" || n.Runtime == nil {
		return fmt.Errorf("a node needs a name and a runtime")
	}
	state := newNodeState(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nodes[n.Name] != nil {
		return fmt.Errorf("node %s is there already", n.Name)
	}
	r.nodes[n.Name] = state
	if r.queue != nil {
		r.watch(state)
	}
	return nil
}

// SetupWithManager registers the controller. The nodes are watched, and orphans looked for, once the cache has synced.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := builder.ControllerManagedBy(mgr).
		Named("agent").
		For(&pcorev1.Pod{}, builder.WithPredicates(r.ours())).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.queue = queue
			return nil
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.options.Concurrency, ReconciliationTimeout: reconcileMost}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("registering the agent: %w", err)
	}
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return nil // The manager ends.
		}
		return r.Start(ctx)
	}))
}

// Start watches the nodes until the context ends, then waits for running jobs to notice. The cache must have synced: what runs and
// isn't in it is taken for an orphan.
func (r *Reconciler) Start(ctx context.Context) error {
	r.mu.Lock()
	r.base = ctx
	for _, node := range r.nodes {
		r.watch(node)
	}
	r.started.Store(true)
	r.mu.Unlock()
	r.wakeStatic()
	<-ctx.Done()
	r.jobs.Wait()
	return nil
}

// pusher is a runtime that tells of ended containers by a call, which costs no goroutine; the fake one does.
type pusher interface {
	OnStopped(func(labels map[string]string))
}

// watch follows one node. The lock is held.
func (r *Reconciler) watch(node *nodeState) {
	changed := func(labels map[string]string) { r.changed(node, labels) }
	if push, ok := node.Runtime.(pusher); ok && node.Simulated {
		push.OnStopped(changed)
		return
	}
	r.jobs.Add(1)
	go func() {
		defer r.jobs.Done()
		node.watch(r.base, changed)
	}()
	if node.evictor != nil {
		base := r.base
		r.jobs.Go(func() { r.guard(base, node.evictor) })
	}
}

// changed wakes a pod whose sandbox or containers changed in the runtime. Of a pod that nobody knows a record is made, so
// that the next look finds it an orphan, or adopts it.
func (r *Reconciler) changed(node *nodeState, labels map[string]string) {
	key, uid := podKey(labels), types.UID(labels[labelPodUID])
	if uid == "" || key.Name == "" {
		return
	}
	r.records.get(node, uid, key, r.options.Now())
	r.wake(key)
}

// ours lets the pods of our nodes through, less the echo of our own writes.
func (r *Reconciler) ours() predicate.Predicate {
	known := func(o client.Object) bool {
		pod, ok := o.(*pcorev1.Pod)
		return ok && !r.staticOnly(pod) && (r.node(pod.Spec.NodeName) != nil || r.records.find(pod.UID) != nil)
	}
	return predicate.Funcs{
		CreateFunc:  func(e event.CreateEvent) bool { return known(e.Object) },
		DeleteFunc:  func(e event.DeleteEvent) bool { return known(e.Object) },
		GenericFunc: func(e event.GenericEvent) bool { return known(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			if !known(e.ObjectNew) {
				return false
			}
			rec := r.records.find(e.ObjectNew.GetUID())
			return rec == nil || !rec.caughtUp(e.ObjectNew.GetResourceVersion())
		},
	}
}
