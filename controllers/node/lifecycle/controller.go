// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes/status,verbs=update
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,namespace=pinnace-node-lease,verbs=get;list;watch

// LeaseNamespace is where agents renew their leases, one named like each node.
const LeaseNamespace = "pinnace-node-lease"

// retryDelay is how long a look waits that met a conflict.
const retryDelay = 50 * time.Millisecond

// Options say how patient the controller is.
type Options struct {
	// Grace is after how long without a renewal a node counts as lost; 40 s when zero, as upstream.
	Grace time.Duration
	// StartupGrace is how long a node that has never had a lease may take; 60 s when zero, as upstream.
	StartupGrace time.Duration
}

// Reconciler watches over nodes.
type Reconciler struct {
	client client.Client
	opts   Options
	now    func() time.Time

	mu   sync.Mutex
	seen map[string]sighting
}

// sighting is the last renewal that was seen.
type sighting struct {
	renewed metav1.MicroTime
	at      time.Time
	leased  bool
	// lost is whether the node counted as lost at the last look.
	lost bool
}

// NewReconciler makes a Reconciler. Its cache must hold the leases of LeaseNamespace.
func NewReconciler(c client.Client, o Options) *Reconciler {
	if o.Grace == 0 {
		o.Grace = 40 * time.Second
	}
	if o.StartupGrace == 0 {
		o.StartupGrace = 60 * time.Second
	}
	return &Reconciler{client: c, opts: o, now: time.Now, seen: map[string]sighting{}}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("node-lifecycle").
		For(&pcorev1.Node{}).
		Watches(&coordinationv1.Lease{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { r.renewal(e.Object, q) },
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) { r.renewal(e.ObjectNew, q) },
		}).
		Complete(r)
}

// renewal notes a renewed lease. Only a node that counts as lost, or is new, is looked at for it: the others have a look due
// anyway, and there are many renewals.
func (r *Reconciler) renewal(obj client.Object, q kube.Queue) {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok || lease.Namespace != LeaseNamespace {
		return
	}
	if before := r.note(lease.Name, lease); before.lost || !before.leased {
		q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: lease.Name}})
	}
}

// note takes a lease in (nil: there is none) and returns what was known before.
func (r *Reconciler) note(node string, lease *coordinationv1.Lease) sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.seen[node]
	s := before
	if !known {
		s.at = r.now()
	}
	if lease != nil && lease.Spec.RenewTime != nil && (!s.leased || !lease.Spec.RenewTime.Equal(&s.renewed)) {
		s.renewed, s.at, s.leased = *lease.Spec.RenewTime, r.now(), true
	}
	r.seen[node] = s
	return before
}

// overdue says whether the node's agent is gone; else wait is when to look again.
func (r *Reconciler) overdue(node string) (lost bool, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen[node]
	grace := r.opts.Grace
	if !s.leased {
		grace = r.opts.StartupGrace
	}
	wait = s.at.Add(grace).Sub(r.now())
	s.lost = wait <= 0
	r.seen[node] = s
	return s.lost, wait
}

// Reconcile judges one node.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var node pcorev1.Node
	if err := r.client.Get(ctx, req.NamespacedName, &node); err != nil {
		if apierrors.IsNotFound(err) {
			r.mu.Lock()
			delete(r.seen, req.Name)
			r.mu.Unlock()
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if err := r.look(ctx, node.Name); err != nil {
		return ctrl.Result{}, err
	}
	lost, wait := r.overdue(node.Name)
	err := r.apply(ctx, &node, lost)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: retryDelay}, nil
	case client.IgnoreNotFound(err) != nil:
		return ctrl.Result{}, err
	case lost:
		return ctrl.Result{}, nil // the renewal of the lease brings it back
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// look reads the node's lease.
func (r *Reconciler) look(ctx context.Context, node string) error {
	var lease coordinationv1.Lease
	err := r.client.Get(ctx, types.NamespacedName{Namespace: LeaseNamespace, Name: node}, &lease)
	switch {
	case err == nil:
		r.note(node, &lease)
	case apierrors.IsNotFound(err):
		r.note(node, nil)
	default:
		return fmt.Errorf("reading the lease of node %s: %w", node, err)
	}
	return nil
}

// apply writes the status of a lost node and the taints that follow from a node's conditions.
func (r *Reconciler) apply(ctx context.Context, node *pcorev1.Node, lost bool) error {
	if status, changed := lostStatus(node, r.now()); lost && changed {
		node = node.DeepCopy()
		node.Status = status
		if err := r.client.Status().Update(ctx, node); err != nil {
			return fmt.Errorf("marking node %s as lost: %w", node.Name, err)
		}
		ctrl.LoggerFrom(ctx).Info("Node is lost: its agent stopped renewing its lease", "node", node.Name)
	}
	want, changed := taints(node, r.now())
	if !changed {
		return nil
	}
	tainted := node.DeepCopy()
	tainted.Spec.Taints = want
	if err := kube.Patch(ctx, r.client, tainted, node); err != nil {
		return fmt.Errorf("tainting node %s: %w", node.Name, err)
	}
	return nil
}
