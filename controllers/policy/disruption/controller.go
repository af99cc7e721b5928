// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
	"github.com/pinnace-dev/pinnace/internal/disruption"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// +kubebuilder:rbac:groups=policy.pinnace.dev,resources=poddisruptionbudgets,verbs=get;list;watch
// +kubebuilder:rbac:groups=policy.pinnace.dev,resources=poddisruptionbudgets/status,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods;replicationcontrollers,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps.pinnace.dev,resources=deployments;replicasets;statefulsets,verbs=get;list;watch
// +kubebuilder:rbac:groups=*,resources=*/scale,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// workers is how many budgets are looked at in parallel.
const workers = 4

// Options of the controller.
type Options struct {
	// Events takes what the user should be told; it defaults to the manager's recorder.
	Events events.EventRecorder
	// Now is the clock; it defaults to time.Now.
	Now func() time.Time
}

// Reconciler keeps the status of PodDisruptionBudgets.
type Reconciler struct {
	client client.Client
	status *kube.StatusWriter[*ppolicyv1.PodDisruptionBudget]
	// discovery tells which kinds can be scaled.
	discovery discovery.ServerResourcesInterface
	Options
}

// NewReconciler makes a Reconciler. c reads from a cache; the scale of owners that aren't Pinnace's is read from the API server.
func NewReconciler(c client.Client, o Options) *Reconciler {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Reconciler{client: c, Options: o, status: kube.NewStatusWriter[*ppolicyv1.PodDisruptionBudget](c, 0)}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if r.Events == nil {
		r.Events = mgr.GetEventRecorder("pinnace-disruption")
	}
	kinds, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making the discovery client: %w", err)
	}
	r.discovery = kinds
	return ctrl.NewControllerManagedBy(mgr).
		Named("disruption").
		For(&ppolicyv1.PodDisruptionBudget{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, evicted()))).
		Watches(&ppolicyv1.PodDisruptionBudget{}, handler.Funcs{
			CreateFunc: func(ctx context.Context, e event.CreateEvent, q kube.Queue) { r.wakeOthers(ctx, q, e.Object) },
			DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q kube.Queue) {
				r.status.Forget(e.Object.GetUID())
				r.wakeOthers(ctx, q, e.Object)
			},
		}).
		Watches(&pcorev1.Pod{}, handler.Funcs{
			CreateFunc: func(ctx context.Context, e event.CreateEvent, q kube.Queue) { r.wake(ctx, q, e.Object) },
			UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q kube.Queue) {
				if matters(e.ObjectOld, e.ObjectNew) {
					r.wake(ctx, q, e.ObjectOld, e.ObjectNew)
				}
			},
			DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q kube.Queue) { r.wake(ctx, q, e.Object) },
		}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: kube.Backoff()}).
		Complete(r)
}

// evicted lets those changes of a status through that somebody else made: an eviction that was noted.
func evicted() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return true },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok := e.ObjectOld.(*ppolicyv1.PodDisruptionBudget)
			after, ok2 := e.ObjectNew.(*ppolicyv1.PodDisruptionBudget)
			return ok && ok2 && !equality.Semantic.DeepEqual(before.Status.DisruptedPods, after.Status.DisruptedPods)
		},
	}
}

// matters says whether a change of a pod can change what is counted.
func matters(before, after client.Object) bool {
	a, ok := before.(*pcorev1.Pod)
	b, ok2 := after.(*pcorev1.Pod)
	return ok && ok2 && ((a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) || workload.IsReady(a) != workload.IsReady(b) ||
		!maps.Equal(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences))
}

// wakeOthers wakes the other budgets of a namespace: a pod may have two budgets now, or no more.
func (r *Reconciler) wakeOthers(ctx context.Context, q kube.Queue, changed client.Object) {
	var list ppolicyv1.PodDisruptionBudgetList
	if err := r.client.List(ctx, &list, client.InNamespace(changed.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list the budgets beside one", "budget", client.ObjectKeyFromObject(changed))
		return
	}
	for i := range list.Items {
		if list.Items[i].UID != changed.GetUID() {
			q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])}, kube.PodDelay)
		}
	}
}

// wake wakes the budgets that select a pod, as it was or as it is.
func (r *Reconciler) wake(ctx context.Context, q kube.Queue, pods ...client.Object) {
	var list ppolicyv1.PodDisruptionBudgetList
	if err := r.client.List(ctx, &list, client.InNamespace(pods[0].GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list the budgets of a pod", "pod", client.ObjectKeyFromObject(pods[0]))
		return
	}
	for i := range list.Items {
		selector, err := disruption.Selector(&list.Items[i].Spec)
		if err != nil {
			continue
		}
		for _, pod := range pods {
			if selector.Matches(labels.Set(pod.GetLabels())) {
				q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])}, kube.PodDelay)
				break
			}
		}
	}
}

// Reconcile counts one budget's pods, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.gather(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	c := makeCount(s)
	err = r.report(ctx, s, c)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: kube.PodDelay}, nil // somebody noted an eviction; the cache will have caught up
	case err != nil:
		return ctrl.Result{}, client.IgnoreNotFound(err)
	case c.problem != "" && !c.permanent:
		return ctrl.Result{}, errors.New(c.problem)
	case c.recheck.IsZero():
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: c.recheck.Sub(s.now) + time.Millisecond}, nil
}

// gather reads the budget, its pods and what their owners want. A nil scope means that there is nothing to do.
func (r *Reconciler) gather(ctx context.Context, key types.NamespacedName) (*scope, error) {
	var cached ppolicyv1.PodDisruptionBudget
	if err := r.client.Get(ctx, key, &cached, client.UnsafeDisableDeepCopy); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if cached.DeletionTimestamp != nil {
		return nil, nil
	}
	s := &scope{pdb: r.status.Freshest(&cached), now: r.Now(), scales: map[types.UID]scale{}}
	selector, err := disruption.Selector(&s.pdb.Spec)
	if err != nil {
		return s, nil // the count says so
	}
	var list pcorev1.PodList
	if err := r.client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingLabelsSelector{Selector: selector}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	needsScale := disruption.NeedsScale(&s.pdb.Spec)
	for i := range list.Items {
		pod := &list.Items[i]
		s.pods = append(s.pods, pod)
		if ref := metav1.GetControllerOfNoCopy(pod); needsScale && ref != nil {
			if _, known := s.scales[ref.UID]; !known {
				s.scales[ref.UID] = r.scaleOf(ctx, pod.Namespace, ref)
			}
		}
	}
	return s, r.findShared(ctx, s)
}

// findShared finds out whether another budget selects one of the pods.
func (r *Reconciler) findShared(ctx context.Context, s *scope) error {
	var list ppolicyv1.PodDisruptionBudgetList
	if err := r.client.List(ctx, &list, client.InNamespace(s.pdb.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing the other budgets: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		selector, err := disruption.Selector(&other.Spec)
		if err != nil || other.UID == s.pdb.UID {
			continue
		}
		for _, pod := range s.pods {
			if selector.Matches(labels.Set(pod.Labels)) {
				s.shared = fmt.Sprintf("PodDisruptionBudget %s selects some of the same pods, so these can't be evicted: let every pod have one budget.", other.Name)
				return nil
			}
		}
	}
	return nil
}

// report writes the status if it changed, and tells about what the user should know.
func (r *Reconciler) report(ctx context.Context, s *scope, c count) error {
	status := makeStatus(s, c)
	if equality.Semantic.DeepEqual(&s.pdb.Status, &status) {
		return nil
	}
	pdb := s.pdb.DeepCopy()
	before := reasonOf(pdb)
	pdb.Status = status
	if err := r.status.Write(ctx, pdb, time.Now()); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	for _, pod := range c.expired {
		r.Events.Eventf(pod, s.pdb, corev1.EventTypeWarning, "NotDeleted", "Evict", "Pod was to be evicted within PodDisruptionBudget %s and wasn't deleted", s.pdb.Name)
	}
	if v := judge(s, c); v.Reason != before && v.Reason != reasonCounted {
		kind, reason := corev1.EventTypeWarning, v.Reason
		if reason == reasonNoPods {
			kind = corev1.EventTypeNormal
		}
		if reason == policyv1.SyncFailedReason {
			reason = "CalculateExpectedPodCountFailed" // upstream's
		}
		r.Events.Eventf(s.pdb, nil, kind, reason, "CountPods", "%s", v.Message)
	}
	return nil
}

// reasonOf returns the reason of the condition Ready.
func reasonOf(pdb *ppolicyv1.PodDisruptionBudget) string {
	for i := range pdb.Status.Conditions {
		if pdb.Status.Conditions[i].Type == pcorev1.ConditionReady {
			return pdb.Status.Conditions[i].Reason
		}
	}
	return ""
}
