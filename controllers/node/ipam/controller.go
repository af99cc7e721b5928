// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch;patch

// retryDelay is how long a look waits that met a conflict.
const retryDelay = 50 * time.Millisecond

// Options say what there is to give out.
type Options struct {
	// PodCIDR is the range of all pods; 10.244.0.0/16 when empty.
	PodCIDR string
	// NodeMask is the number of bits of a node's part; 24 when zero, or 64 for IPv6.
	NodeMask int
}

// Reconciler gives nodes their parts of the pod range.
type Reconciler struct {
	client client.Client
	live   client.Reader
	pool   *Pool
	// primed is set once the parts of all present nodes are known. There is one worker, so it needs no lock.
	primed bool
}

// NewReconciler makes a Reconciler. live reads past the cache. An error says what is wrong with the options.
func NewReconciler(c client.Client, live client.Reader, o Options) (*Reconciler, error) {
	if o.PodCIDR == "" {
		o.PodCIDR = "10.244.0.0/16"
	}
	cluster, err := netip.ParsePrefix(o.PodCIDR)
	if err != nil {
		return nil, fmt.Errorf("the pod range %q isn't a CIDR; give one such as 10.244.0.0/16: %w", o.PodCIDR, err)
	}
	if o.NodeMask == 0 {
		o.NodeMask = 24
		if cluster.Addr().Is6() {
			o.NodeMask = 64
		}
	}
	pool, err := NewPool(cluster, o.NodeMask)
	if err != nil {
		return nil, err
	}
	return &Reconciler{client: c, live: live, pool: pool}, nil
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	appears := predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			n, ok := e.ObjectNew.(*pcorev1.Node)
			return ok && n.Spec.PodCIDR == ""
		},
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("node-ipam").
		For(&pcorev1.Node{}, builder.WithPredicates(appears)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
}

// Reconcile gives one node its part, or takes back that of a node that is gone.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := r.prime(ctx); err != nil {
		return ctrl.Result{}, err
	}
	var node pcorev1.Node
	err := r.client.Get(ctx, req.NamespacedName, &node)
	switch {
	case apierrors.IsNotFound(err):
		r.pool.Release(req.Name)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("reading node %s: %w", req.Name, err)
	case node.Spec.PodCIDR != "":
		return ctrl.Result{}, r.occupy(&node)
	}
	subnet, err := r.pool.Take(node.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	changed := node.DeepCopy()
	changed.Spec.PodCIDR = subnet.String()
	changed.Spec.PodCIDRs = []string{subnet.String()}
	err = kube.Patch(ctx, r.client, changed, &node)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: retryDelay}, nil // the node keeps its part meanwhile
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("giving node %s the pod range %s: %w", node.Name, subnet, err)
	}
	return ctrl.Result{}, nil
}

// prime notes the parts that all nodes have, read past the cache, before the first one is given out.
func (r *Reconciler) prime(ctx context.Context) error {
	if r.primed {
		return nil
	}
	var nodes pcorev1.NodeList
	if err := r.live.List(ctx, &nodes); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	for i := range nodes.Items {
		if err := r.occupy(&nodes.Items[i]); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Two nodes share a pod range")
		}
	}
	r.primed = true
	return nil
}

// occupy notes the parts that a node has.
func (r *Reconciler) occupy(node *pcorev1.Node) error {
	have := node.Spec.PodCIDRs
	if len(have) == 0 && node.Spec.PodCIDR != "" {
		have = []string{node.Spec.PodCIDR}
	}
	for _, cidr := range have {
		subnet, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue // not ours, and no CIDR
		}
		if err := r.pool.Occupy(node.Name, subnet); err != nil {
			return err
		}
	}
	return nil
}
