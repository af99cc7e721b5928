// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package tainteviction

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods/status,verbs=update

const (
	// retryDelay is how long a look waits that met a conflict.
	retryDelay = 50 * time.Millisecond
	// holdDelay is how long to wait while so many nodes are lost that nothing is evicted for it.
	holdDelay = 10 * time.Second
)

// Reason and message of the condition DisruptionTarget, and the reason why a pod isn't ready; upstream's.
const (
	reasonTaint        = "DeletionByTaintManager"
	messageTaint       = "Taint manager: deleting due to NoExecute taint"
	reasonNodeNotReady = "NodeNotReady"
)

// Reconciler evicts pods from tainted nodes. A request names a node.
type Reconciler struct {
	client client.Client
	now    func() time.Time

	mu sync.Mutex
	// since is from when on the pods of tainted nodes have been seen there, by node.
	since map[string]map[types.UID]time.Time
}

// NewReconciler makes a Reconciler. c reads from a cache that has kube.AddIndexes' indexes.
func NewReconciler(c client.Client) *Reconciler {
	return &Reconciler{client: c, now: time.Now, since: map[string]map[types.UID]time.Time{}}
}

// SetupWithManager adds the controller to the manager. Of a pod only its node and its tolerations matter.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	byName := func(name string, q kube.Queue) {
		q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
	tainted := func(n *pcorev1.Node) bool { return len(n.Spec.Taints) > 0 }
	return ctrl.NewControllerManagedBy(mgr).
		Named("taint-eviction").
		Watches(&pcorev1.Node{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) {
				if n, ok := e.Object.(*pcorev1.Node); ok && tainted(n) {
					byName(n.Name, q)
				}
			},
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
				before, ok := e.ObjectOld.(*pcorev1.Node)
				after, ok2 := e.ObjectNew.(*pcorev1.Node)
				if ok && ok2 && !equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
					byName(after.Name, q)
				}
			},
			DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) { byName(e.Object.GetName(), q) },
		}).
		Watches(&pcorev1.Pod{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { r.podChanged(nil, e.Object, q) },
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) { r.podChanged(e.ObjectOld, e.ObjectNew, q) },
		}).
		Complete(r)
}

// podChanged looks at the node of a pod that is new there, or tolerates something else, if that node has taints.
func (r *Reconciler) podChanged(before, after client.Object, q kube.Queue) {
	pod, ok := after.(*pcorev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return
	}
	if old, ok := before.(*pcorev1.Pod); ok && old != nil && old.Spec.NodeName == pod.Spec.NodeName &&
		equality.Semantic.DeepEqual(old.Spec.Tolerations, pod.Spec.Tolerations) {
		return
	}
	r.mu.Lock()
	_, tainted := r.since[pod.Spec.NodeName]
	r.mu.Unlock()
	if tainted {
		q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: pod.Spec.NodeName}})
	}
}

// Reconcile looks at the pods of one node.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var node pcorev1.Node
	if err := r.client.Get(ctx, req.NamespacedName, &node); err != nil {
		r.forget(req.Name)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	matters := func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute || t.Key == corev1.TaintNodeUnreachable
	}
	if !slices.ContainsFunc(node.Spec.Taints, matters) {
		r.forget(req.Name)
		return ctrl.Result{}, nil
	}
	s := situation{taints: node.Spec.Taints, now: r.now()}
	r.mu.Lock()
	if r.since[req.Name] == nil {
		r.since[req.Name] = map[types.UID]time.Time{} // From now on its pods are watched.
	}
	s.since = r.since[req.Name]
	r.mu.Unlock()
	var pods pcorev1.PodList
	if err := r.client.List(ctx, &pods, client.MatchingFields{kube.ByNode: req.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing the pods of node %s: %w", req.Name, err)
	}
	for i := range pods.Items {
		s.pods = append(s.pods, &pods.Items[i])
	}
	var err error
	if s.hold, err = r.hold(ctx); err != nil {
		return ctrl.Result{}, err
	}
	p := makePlan(s)
	r.mu.Lock()
	r.since[req.Name] = p.since
	r.mu.Unlock()
	return r.apply(ctx, s, p)
}

func (r *Reconciler) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.since, node)
}

// hold counts the nodes that are lost.
func (r *Reconciler) hold(ctx context.Context) (bool, error) {
	var nodes pcorev1.NodeList
	if err := r.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing the nodes: %w", err)
	}
	lost := 0
	for i := range nodes.Items {
		isLost := func(t corev1.Taint) bool { return slices.Contains(lostKeys, t.Key) }
		if slices.ContainsFunc(nodes.Items[i].Spec.Taints, isLost) {
			lost++
		}
	}
	return holdBack(len(nodes.Items), lost), nil
}

func (r *Reconciler) apply(ctx context.Context, s situation, p plan) (ctrl.Result, error) {
	again := false
	for _, pod := range p.notReady {
		err := r.tell(ctx, pod, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: reasonNodeNotReady})
		switch {
		case apierrors.IsConflict(err):
			again = true
		case client.IgnoreNotFound(err) != nil:
			return ctrl.Result{}, err
		}
	}
	for _, pod := range p.evict {
		err := r.evict(ctx, pod)
		switch {
		case apierrors.IsConflict(err):
			again = true
		case client.IgnoreNotFound(err) != nil:
			return ctrl.Result{}, err
		}
	}
	switch {
	case again:
		return ctrl.Result{RequeueAfter: retryDelay}, nil
	case s.hold:
		return ctrl.Result{RequeueAfter: holdDelay}, nil
	case !p.wake.IsZero():
		return ctrl.Result{RequeueAfter: max(time.Millisecond, p.wake.Sub(s.now))}, nil
	}
	return ctrl.Result{}, nil
}

// evict says in the pod's status why it goes, and deletes it.
func (r *Reconciler) evict(ctx context.Context, pod *pcorev1.Pod) error {
	if !podstate.IsTerminal(pod.Status.Phase) && !podstate.IsTrue(pod.Status.Conditions, corev1.DisruptionTarget) {
		err := r.tell(ctx, pod, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reasonTaint, Message: messageTaint})
		if err != nil {
			return err
		}
	}
	if err := r.client.Delete(ctx, pod.DeepCopy(), client.Preconditions{UID: &pod.UID}); err != nil {
		return fmt.Errorf("evicting pod %s from node %s: %w", pod.Name, pod.Spec.NodeName, err)
	}
	ctrl.LoggerFrom(ctx).Info("Evicted a pod from a tainted node", "pod", client.ObjectKeyFromObject(pod), "node", pod.Spec.NodeName)
	return nil
}

// tell sets a condition of the pod, under the resource version that is known: the node's agent writes there as well.
func (r *Reconciler) tell(ctx context.Context, pod *pcorev1.Pod, c corev1.PodCondition) error {
	c.ObservedGeneration, c.LastTransitionTime = pod.Generation, metav1.NewTime(r.now().Truncate(time.Second))
	changed := pod.DeepCopy()
	i := slices.IndexFunc(changed.Status.Conditions, func(have corev1.PodCondition) bool { return have.Type == c.Type })
	if i < 0 {
		changed.Status.Conditions = append(changed.Status.Conditions, c)
	} else {
		changed.Status.Conditions[i] = c
	}
	changed.Status.Columns = podstate.Columns(changed, changed.DeletionTimestamp != nil)
	if err := r.client.Status().Update(ctx, changed); err != nil {
		return fmt.Errorf("writing the status of pod %s: %w", pod.Name, err)
	}
	return nil
}
