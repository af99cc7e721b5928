// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=services;pods;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=discovery.pinnace.dev,resources=endpointslices,verbs=get;list;watch

const (
	// debounce lets the changes of many slices share one transaction.
	debounce = 15 * time.Millisecond
	// checkEvery is how often the table is compared with what it should be, in case somebody flushed it.
	checkEvery = time.Minute
	// byService is the index of slices by their service, as namespace/name.
	byService = "pinnace.service"
)

// request is the one thing that is queued: what there is to do stands in the dirty sets.
var request = reconcile.Request{NamespacedName: types.NamespacedName{Name: "dataplane"}}

// Table is the packet rules of one address family; internal/dataplane's Dataplane is one.
type Table interface {
	Config() ruleset.Config
	Configure(config ruleset.Config) (changed bool)
	Update(ctx context.Context, fragments map[string]ruleset.Fragment) error
	Check(ctx context.Context) (repaired bool, err error)
}

// Reconciler keeps the tables of one node.
type Reconciler struct {
	client client.Client
	node   string
	tables []Table

	mu       sync.Mutex
	services map[types.NamespacedName]bool
	pods     map[types.NamespacedName]bool
	// everything asks for a look at all objects: at the start, since only then the table may be replaced.
	everything bool
}

// NewReconciler makes a Reconciler for a node with a table for each address family. c reads from a cache, of whose pods the node's
// own are enough.
func NewReconciler(c client.Client, node string, tables ...Table) *Reconciler {
	return &Reconciler{
		client: c, node: node, tables: tables, everything: true,
		services: map[types.NamespacedName]bool{}, pods: map[types.NamespacedName]bool{},
	}
}

// SetupWithManager adds the controller and its index to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &pdiscoveryv1.EndpointSlice{}, byService, serviceIndex); err != nil {
		return fmt.Errorf("indexing endpoint slices by their service: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("dataplane").
		Watches(&pcorev1.Service{}, r.serviceEvents()).
		Watches(&pdiscoveryv1.EndpointSlice{}, r.sliceEvents()).
		Watches(&pcorev1.Pod{}, r.podEvents()).
		Watches(&pcorev1.Node{}, r.nodeEvents()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, NeedLeaderElection: new(false)}).
		Complete(r)
}

func serviceIndex(obj client.Object) []string {
	name := obj.GetLabels()[discoveryv1.LabelServiceName]
	if name == "" {
		return nil
	}
	return []string{obj.GetNamespace() + "/" + name}
}

// Reconcile brings what is dirty into the kernel. What couldn't be written stays with the tables, which bring it next time.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	services, pods, err := r.take(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	configured, err := r.configure(ctx)
	if err != nil {
		return ctrl.Result{}, r.giveBack(services, pods, err)
	}
	if len(services)+len(pods) == 0 && !configured {
		return ctrl.Result{RequeueAfter: checkEvery}, r.check(ctx)
	}
	var failures []error
	for _, table := range r.tables {
		fragments, err := r.gather(ctx, table.Config(), services, pods)
		if err != nil {
			return ctrl.Result{}, r.giveBack(services, pods, err)
		}
		failures = append(failures, table.Update(ctx, fragments))
	}
	return ctrl.Result{RequeueAfter: checkEvery}, errors.Join(failures...)
}

// take empties the dirty sets.
func (r *Reconciler) take(ctx context.Context) (services, pods map[types.NamespacedName]bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.everything {
		var serviceList pcorev1.ServiceList
		var podList pcorev1.PodList
		if err := errors.Join(r.client.List(ctx, &serviceList, client.UnsafeDisableDeepCopy), r.client.List(ctx, &podList, client.UnsafeDisableDeepCopy)); err != nil {
			return nil, nil, fmt.Errorf("listing services and pods: %w", err)
		}
		for i := range serviceList.Items {
			r.services[client.ObjectKeyFromObject(&serviceList.Items[i])] = true
		}
		for i := range podList.Items {
			if r.hasHostPorts(&podList.Items[i]) {
				r.pods[client.ObjectKeyFromObject(&podList.Items[i])] = true
			}
		}
		r.everything = false
	}
	services, pods = r.services, r.pods
	r.services, r.pods = map[types.NamespacedName]bool{}, map[types.NamespacedName]bool{}
	return services, pods, nil
}

// giveBack makes what was taken dirty again, after an error.
func (r *Reconciler) giveBack(services, pods map[types.NamespacedName]bool, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.services, services)
	maps.Copy(r.pods, pods)
	return err
}

// configure tells the tables the node's pod networks, once they are known.
func (r *Reconciler) configure(ctx context.Context) (changed bool, err error) {
	var node pcorev1.Node
	if err := r.client.Get(ctx, types.NamespacedName{Name: r.node}, &node, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil // It is about to register itself.
		}
		return false, fmt.Errorf("reading the node: %w", err)
	}
	for _, table := range r.tables {
		config := table.Config()
		config.PodCIDRs = podCIDRs(&node, config.Family)
		changed = table.Configure(config) || changed
	}
	return changed, nil
}

func podCIDRs(node *pcorev1.Node, family ruleset.Family) []netip.Prefix {
	texts := node.Spec.PodCIDRs
	if len(texts) == 0 && node.Spec.PodCIDR != "" {
		texts = []string{node.Spec.PodCIDR}
	}
	var cidrs []netip.Prefix
	for _, text := range texts {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Addr().Is6() == (family == ruleset.IPv6) {
			cidrs = append(cidrs, prefix.Masked())
		}
	}
	return cidrs
}

func (r *Reconciler) check(ctx context.Context) error {
	for _, table := range r.tables {
		repaired, err := table.Check(ctx)
		if err != nil {
			return err
		}
		if repaired {
			ctrl.LoggerFrom(ctx).Info("Wrote the packet rules anew, since they were not what this agent had written", "family", table.Config().Family)
		}
	}
	return nil
}

// gather computes the fragments of what is dirty. Who is gone gets an empty one.
func (r *Reconciler) gather(ctx context.Context, config ruleset.Config, services, pods map[types.NamespacedName]bool) (map[string]ruleset.Fragment, error) {
	fragments := map[string]ruleset.Fragment{}
	for key := range services {
		fragment, err := r.serviceFragment(ctx, config, key)
		if err != nil {
			return nil, err
		}
		fragments["service "+key.String()] = fragment
	}
	for key := range pods {
		var pod pcorev1.Pod
		err := r.client.Get(ctx, key, &pod, client.UnsafeDisableDeepCopy)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading the pod %s: %w", key, err)
		}
		fragments["pod "+key.String()] = ruleset.Fragment{}
		if err == nil && r.hasHostPorts(&pod) {
			fragments["pod "+key.String()] = config.HostPorts(&pod)
		}
	}
	return fragments, nil
}

func (r *Reconciler) serviceFragment(ctx context.Context, config ruleset.Config, key types.NamespacedName) (ruleset.Fragment, error) {
	var service pcorev1.Service
	if err := r.client.Get(ctx, key, &service, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			return ruleset.Fragment{}, nil
		}
		return ruleset.Fragment{}, fmt.Errorf("reading the service %s: %w", key, err)
	}
	switch endpoints.Stalled(&service) {
	case endpoints.ReasonIPConflict, endpoints.ReasonInvalidIP:
		return ruleset.Fragment{}, nil
	case endpoints.ReasonPortConflict:
		service.Spec.Type = corev1.ServiceTypeClusterIP // in this copy of the top level alone
	}
	var list pdiscoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingFields{byService: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return ruleset.Fragment{}, fmt.Errorf("listing the endpoint slices of %s: %w", key, err)
	}
	slices := make([]*pdiscoveryv1.EndpointSlice, len(list.Items))
	for i := range list.Items {
		slices[i] = &list.Items[i]
	}
	return config.Service(&service, slices), nil
}

func (r *Reconciler) hasHostPorts(pod *pcorev1.Pod) bool {
	return pod.Spec.NodeName == r.node && ruleset.HasHostPorts(pod)
}
