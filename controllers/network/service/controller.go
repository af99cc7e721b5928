// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=services,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=services/status,verbs=update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// soon is when to look again at what the cache hasn't shown yet.
const soon = 20 * time.Millisecond

// Reconciler gives services their addresses and ports.
type Reconciler struct {
	client   client.Client
	ranges   []netip.Prefix
	holdings *holdings
	status   *kube.StatusWriter[*pcorev1.Service]
	events   events.EventRecorder
	now      func() time.Time
}

// Options of the controller.
type Options struct {
	// ServiceCIDR is the service network, or two of different families, the preferred one first, with a comma between.
	ServiceCIDR string
	// Events takes what the user should be told; it defaults to the manager's recorder.
	Events events.EventRecorder
}

// NewReconciler makes a Reconciler. c reads from a cache; live reads past it.
func NewReconciler(c client.Client, live client.Reader, o Options) (*Reconciler, error) {
	var ranges []netip.Prefix
	for _, cidr := range strings.FieldsFunc(o.ServiceCIDR, func(c rune) bool { return c == ',' || c == ' ' }) {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("the service network %q is none: give one such as 10.97.0.0/16: %w", cidr, err)
		}
		if usable(prefix) == 0 {
			return nil, fmt.Errorf("the service network %s has no room for a service: give a larger one", prefix)
		}
		ranges = append(ranges, prefix.Masked())
	}
	if len(ranges) == 0 {
		return nil, errors.New("there is no service network: give one such as 10.97.0.0/16")
	}
	return &Reconciler{
		client: c, ranges: ranges, events: o.Events, now: time.Now,
		holdings: newHoldings(c, live),
		status:   kube.NewStatusWriter[*pcorev1.Service](c, 0),
	}, nil
}

// SetupWithManager adds the controller and its indexes to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if err := addIndexes(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if r.events == nil {
		r.events = mgr.GetEventRecorder("pinnace-service")
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("service").
		Watches(&pcorev1.Service{}, r.serviceEvents()).
		// One worker: two could give out the same address.
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
}

// serviceEvents wakes a service for its own changes, and those that wait for the address of one that is gone.
func (r *Reconciler) serviceEvents() handler.EventHandler {
	wake := func(obj client.Object, q kube.Queue) {
		q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(obj)})
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { wake(e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Service)
			after, ok2 := e.ObjectNew.(*pcorev1.Service)
			if !ok || !ok2 {
				return
			}
			if before.Generation != after.Generation || !equality.Semantic.DeepEqual(before.Status.LoadBalancer, after.Status.LoadBalancer) {
				wake(after, q)
			}
			if released(held(before), held(after)) {
				r.wakeWaiting(ctx, q)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q kube.Queue) {
			r.holdings.gone(e.Object.GetUID())
			r.status.Forget(e.Object.GetUID())
			r.wakeWaiting(ctx, q)
		},
	}
}

// released says whether something of before is not in after.
func released(before, after []string) bool {
	return slices.ContainsFunc(before, func(value string) bool { return !slices.Contains(after, value) })
}

// wakeWaiting wakes the services that are stalled. They are few, and one of them may now have what it waits for.
func (r *Reconciler) wakeWaiting(ctx context.Context, q kube.Queue) {
	var list pcorev1.ServiceList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Listing the services that wait for an address")
		return
	}
	for i := range list.Items {
		if _, stalled := conditions.Get(list.Items[i].Status.Conditions, pcorev1.ConditionStalled); stalled {
			q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])}, soon)
		}
	}
}

// Reconcile gives one service what it lacks and reports: at most one write of the spec and one of the status.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := r.holdings.seed(ctx, r.now()); err != nil {
		return ctrl.Result{}, err
	}
	var cached pcorev1.Service
	if err := r.client.Get(ctx, req.NamespacedName, &cached, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if cached.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	service := r.status.Freshest(&cached)
	p, err := r.plan(ctx, service)
	if err != nil {
		return ctrl.Result{}, err
	}
	service, err = r.apply(ctx, service, p)
	if err == nil {
		err = r.report(ctx, service, p.verdict)
	}
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: soon}, nil // the cache will have caught up
	case err != nil:
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	return ctrl.Result{}, nil
}

// plan hands the planner the world as functions, since of tens of thousands of addresses it looks at one or two.
func (r *Reconciler) plan(ctx context.Context, service *pcorev1.Service) (plan, error) {
	var failure error
	ask := func(field, kind, value string) (types.NamespacedName, bool) {
		holder, taken, err := r.holdings.holder(ctx, service, field, kind, value, r.now())
		failure = errors.Join(failure, err)
		return holder, taken
	}
	p := makePlan(&scope{
		service: service, ranges: r.ranges,
		ipHolder:   func(a netip.Addr) (types.NamespacedName, bool) { return ask(byClusterIP, "ip", a.String()) },
		portHolder: func(n nodePort) (types.NamespacedName, bool) { return ask(byNodePort, "port", n.String()) },
	})
	return p, failure
}

// apply writes the spec when it changed, and returns the service as it is then. A plan that found a problem writes nothing.
func (r *Reconciler) apply(ctx context.Context, service *pcorev1.Service, p plan) (*pcorev1.Service, error) {
	if p.verdict.State == condition.Failed || equality.Semantic.DeepEqual(service.Spec, p.spec) {
		return service, nil
	}
	updated := service.DeepCopy()
	updated.Spec = p.spec
	if err := kube.Patch(ctx, r.client, updated, service); err != nil {
		return nil, fmt.Errorf("writing the addresses of the service: %w", err)
	}
	r.holdings.wrote(updated, r.now())
	r.status.Wrote(updated, r.now())
	return updated, nil
}

// report writes the status when it changed, and tells of a new problem.
func (r *Reconciler) report(ctx context.Context, service *pcorev1.Service, verdict condition.Verdict) error {
	status := makeStatus(service, verdict, r.now())
	if equality.Semantic.DeepEqual(status, service.Status) {
		return nil
	}
	before, _ := conditions.Get(service.Status.Conditions, pcorev1.ConditionReady)
	updated := service.DeepCopy()
	updated.Status = status
	if err := r.status.Write(ctx, updated, r.now()); err != nil {
		return fmt.Errorf("writing the status of the service: %w", err)
	}
	if verdict.State == condition.Failed && before.Reason != verdict.Reason && r.events != nil {
		r.events.Eventf(service, nil, corev1.EventTypeWarning, verdict.Reason, "AllocateAddress", "%s", verdict.Message)
	}
	return nil
}
