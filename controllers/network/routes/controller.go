// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch

const (
	// debounce lets the changes of many nodes share one look.
	debounce = 20 * time.Millisecond
	// relist is how often the routes are looked at in case somebody changed them.
	relist = 2 * time.Minute
)

var request = reconcile.Request{NamespacedName: types.NamespacedName{Name: "routes"}}

// Options say whose network it is.
type Options struct {
	// Node is the node's own name.
	Node string
	// EnsureRoutes defaults to podnetwork.EnsureRoutes.
	EnsureRoutes func([]podnetwork.Route) error
}

// Reconciler keeps the network of one machine.
type Reconciler struct {
	client client.Client
	opts   Options
	// said is the last problem that was logged, so that a lasting one isn't logged at each look.
	said string
}

// NewReconciler makes a Reconciler. c reads from a cache of all nodes.
func NewReconciler(c client.Client, opts Options) *Reconciler {
	if opts.EnsureRoutes == nil {
		opts.EnsureRoutes = podnetwork.EnsureRoutes
	}
	return &Reconciler{client: c, opts: opts}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("routes").
		Watches(&pcorev1.Node{}, nodeEvents()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false)}).
		Complete(r)
}

// nodeEvents: only a node's networks and its addresses matter.
func nodeEvents() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, _ event.CreateEvent, q kube.Queue) { q.AddAfter(request, debounce) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Node)
			after, ok2 := e.ObjectNew.(*pcorev1.Node)
			if ok && ok2 && (!equality.Semantic.DeepEqual(podCIDRs(before), podCIDRs(after)) ||
				!equality.Semantic.DeepEqual(before.Status.Addresses, after.Status.Addresses)) {
				q.AddAfter(request, debounce)
			}
		},
		DeleteFunc: func(_ context.Context, _ event.DeleteEvent, q kube.Queue) { q.AddAfter(request, debounce) },
	}
}

// Reconcile brings the machine's network in line with the nodes.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	var list pcorev1.NodeList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing the nodes: %w", err)
	}
	nodes := make([]*pcorev1.Node, len(list.Items))
	for i := range list.Items {
		nodes[i] = &list.Items[i]
	}
	err := r.opts.EnsureRoutes(makePlan(r.opts.Node, nodes))
	var unreachable *podnetwork.UnreachableError
	if errors.As(err, &unreachable) {
		// No retry will mend the wiring; the routes that can be set are set.
		if r.said != err.Error() {
			r.said = err.Error()
			ctrl.LoggerFrom(ctx).Error(err, "Some pods can't be reached from here")
		}
		err = nil
	}
	return ctrl.Result{RequeueAfter: relist}, err
}
