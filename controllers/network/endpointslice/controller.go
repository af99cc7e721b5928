// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=services;pods;nodes;endpoints,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=services/finalizers,verbs=update
// +kubebuilder:rbac:groups=discovery.pinnace.dev,resources=endpointslices,verbs=get;list;watch;create;update;delete

const (
	// gatherDelay lets changes that come together be looked at together.
	gatherDelay = 20 * time.Millisecond
	// minWindow is the shortest time between two rounds of writes for one service. It doubles with each round up to
	// maxWindow, and is back after a quiet time of two maxWindows.
	minWindow, maxWindow = 100 * time.Millisecond, 500 * time.Millisecond
	// shrinkWindow bounds the wait of who leaves: no more traffic should go there.
	shrinkWindow = 200 * time.Millisecond
	// workers is how many services are looked at in parallel.
	workers = 4
)

// Reconciler keeps the slices of services.
type Reconciler struct {
	client client.Client
	own    *kube.Overlay[*pdiscoveryv1.EndpointSlice]
	now    func() time.Time

	mu    sync.Mutex
	wrote map[types.NamespacedName]pace
}

// NewReconciler makes a Reconciler. c reads from a cache.
func NewReconciler(c client.Client) *Reconciler {
	return &Reconciler{
		client: c, now: time.Now, wrote: map[types.NamespacedName]pace{},
		own: kube.NewOverlay(func(slice *pdiscoveryv1.EndpointSlice) *pdiscoveryv1.EndpointSlice {
			out := *slice
			slice.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
			return &out
		}),
	}
}

// SetupWithManager adds the controller and its index to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &pdiscoveryv1.EndpointSlice{}, kube.ByController, kube.ControllerIndex); err != nil {
		return fmt.Errorf("indexing endpoint slices by their service: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("endpointslice").
		Watches(&pcorev1.Service{}, r.serviceEvents()).
		Watches(&pcorev1.Pod{}, r.podEvents()).
		Watches(&pcorev1.Endpoints{}, endpointsEvents()).
		Watches(&pdiscoveryv1.EndpointSlice{}, kube.Owned[*pdiscoveryv1.EndpointSlice]{
			Owner: pcorev1.GroupVersion.WithKind("Service"), Delay: maxWindow, Own: r.own,
		}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

// scope is what is known about one service, and what follows from it.
type scope struct {
	service  *pcorev1.Service
	existing []*pdiscoveryv1.EndpointSlice
	changes  endpoints.Changes
	// moreToCome says that pods of the service are still on their way to being ready.
	moreToCome bool
}

// bounds are how long the service's writes should be apart, at least and at most. While more pods are on their way to being
// ready, growth waits for them: twenty pods that start within two seconds cost about five writes, and both the first and
// the last get traffic at once.
func (s *scope) bounds() (least, most time.Duration) {
	switch {
	case endpoints.Shrinks(s.existing, s.changes):
		return 0, shrinkWindow
	case s.moreToCome:
		return maxWindow, maxWindow
	}
	return 0, maxWindow
}

// Reconcile brings the slices of one service up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil || s.changes.Empty() {
		return ctrl.Result{}, err
	}
	least, most := s.bounds()
	if wait := r.due(req.NamespacedName, least, most); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if err := r.apply(ctx, s); err != nil {
		if apierrors.IsConflict(err) {
			return ctrl.Result{RequeueAfter: gatherDelay}, nil // the cache will have caught up
		}
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, nil
}

// gather reads the service, its slices and who is behind it. A nil scope means that there is nothing to do: the slices of
// a service that is gone are garbage and collected as such.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var service pcorev1.Service
	if err := r.client.Get(ctx, key, &service, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(key)
			return nil, nil
		}
		return nil, fmt.Errorf("reading the service: %w", err)
	}
	if service.DeletionTimestamp != nil || service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, nil
	}
	s := &scope{service: &service}
	var err error
	if len(service.Spec.Selector) == 0 {
		return s, r.gatherMirror(ctx, s)
	}
	if s.existing, err = r.slices(ctx, &service, endpoints.ManagedByPods); err != nil {
		return nil, err
	}
	var pods pcorev1.PodList
	selector := labels.SelectorFromSet(service.Spec.Selector)
	if err := r.client.List(ctx, &pods, client.InNamespace(key.Namespace), client.MatchingLabelsSelector{Selector: selector}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	matched := make([]*pcorev1.Pod, len(pods.Items))
	zones := map[string]string{}
	for i := range pods.Items {
		matched[i] = &pods.Items[i]
		if err := r.zone(ctx, matched[i].Spec.NodeName, zones); err != nil {
			return nil, err
		}
	}
	s.changes = endpoints.Plan(&service, matched, s.existing, zones)
	s.moreToCome = slices.ContainsFunc(matched, endpoints.OnItsWay)
	return s, nil
}

// gatherMirror is for services without a selector, whose Endpoints somebody makes by hand.
func (r *Reconciler) gatherMirror(ctx context.Context, s *scope) (err error) {
	if s.existing, err = r.slices(ctx, s.service, endpoints.ManagedByMirror); err != nil {
		return err
	}
	source := &pcorev1.Endpoints{}
	if err := r.client.Get(ctx, client.ObjectKeyFromObject(s.service), source, client.UnsafeDisableDeepCopy); err != nil {
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading the Endpoints: %w", err)
		}
		source = nil
	}
	s.changes = endpoints.Mirror(s.service, source, s.existing)
	return nil
}

// slices are the service's own of one manager, with what was just written.
func (r *Reconciler) slices(ctx context.Context, service *pcorev1.Service, manager string) ([]*pdiscoveryv1.EndpointSlice, error) {
	var list pdiscoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingFields{kube.ByController: string(service.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing endpoint slices: %w", err)
	}
	cached := make([]*pdiscoveryv1.EndpointSlice, len(list.Items))
	for i := range list.Items {
		cached[i] = &list.Items[i]
	}
	var mine []*pdiscoveryv1.EndpointSlice
	for _, slice := range r.own.Apply(service.UID, cached, r.now()) {
		if slice.Labels[discoveryv1.LabelManagedBy] == manager {
			mine = append(mine, slice)
		}
	}
	return mine, nil
}

// zone remembers the zone of a node. A node that is gone has none.
func (r *Reconciler) zone(ctx context.Context, name string, zones map[string]string) error {
	if _, known := zones[name]; known || name == "" {
		return nil
	}
	var node pcorev1.Node
	if err := r.client.Get(ctx, types.NamespacedName{Name: name}, &node, client.UnsafeDisableDeepCopy); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading the node %s: %w", name, err)
	}
	zones[name] = node.Labels[corev1.LabelTopologyZone]
	return nil
}

// apply writes the changes. It goes on after a failure: each slice stands for itself.
func (r *Reconciler) apply(ctx context.Context, s *scope) error {
	var failures []error
	owner := s.service.UID
	for _, slice := range s.changes.Create {
		err := r.client.Create(ctx, slice)
		switch {
		case err == nil:
			r.own.Created(owner, slice, r.now())
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		default:
			failures = append(failures, fmt.Errorf("creating the endpoint slice %s: %w", slice.Name, err))
		}
	}
	for _, slice := range s.changes.Update {
		if err := r.client.Update(ctx, slice); err != nil {
			failures = append(failures, fmt.Errorf("writing the endpoint slice %s: %w", slice.Name, err))
			continue
		}
		r.own.Updated(owner, slice, r.now())
	}
	for _, slice := range s.changes.Delete {
		uid := slice.UID
		err := r.client.Delete(ctx, slice.DeepCopy(), client.Preconditions{UID: &uid})
		if client.IgnoreNotFound(err) != nil {
			failures = append(failures, fmt.Errorf("deleting the endpoint slice %s: %w", slice.Name, err))
			continue
		}
		r.own.Deleted(owner, slice, r.now())
	}
	return errors.Join(failures...)
}

// pace is when a service's slices were last written, and how long the next round should wait from then.
type pace struct {
	last time.Time
	gap  time.Duration
}

// due is how long the next round of writes has to wait; zero starts it.
func (r *Reconciler) due(key types.NamespacedName, least, most time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	p, ok := r.wrote[key]
	since := now.Sub(p.last)
	if !ok || since > 2*maxWindow {
		r.wrote[key] = pace{now, minWindow}
		return 0
	}
	if wait := min(max(p.gap, least), most) - since; wait > 0 {
		return wait
	}
	r.wrote[key] = pace{now, min(2*p.gap, maxWindow)}
	return 0
}

func (r *Reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.wrote, key)
}
