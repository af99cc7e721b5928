// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"context"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/placement"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// memory is what is remembered of one DaemonSet between two looks. Nothing is lost with it but time.
type memory struct {
	uid        types.UID
	generation int64
	// target is the name of the revision that match was made from.
	target  string
	match   *placement.NodeMatcher
	backoff *workload.NodeBackoff
}

// recall returns what is remembered of a DaemonSet, brought up to date.
func (r *Reconciler) recall(key types.NamespacedName, s *scope) memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.known[key]
	if m == nil || m.uid != s.set.UID {
		r.drop(key)
		m = &memory{uid: s.set.UID}
		r.known[key] = m
	}
	if m.backoff == nil || m.generation != s.set.Generation {
		m.generation, m.backoff = s.set.Generation, &workload.NodeBackoff{} // another spec may well work
	}
	if m.match == nil || m.target != s.target.Name {
		m.target, m.match = s.target.Name, placement.NewNodeMatcher(workload.WithDaemonTolerations(&s.template.Spec))
	}
	return *m
}

// forget drops what is remembered of a DaemonSet that is gone.
func (r *Reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(key)
}

// drop is forget for a caller that holds mu.
func (r *Reconciler) drop(key types.NamespacedName) {
	m := r.known[key]
	if m == nil {
		return
	}
	delete(r.known, key)
	r.pods.Forget(m.uid)
	r.revisions.Own.Forget(m.uid)
	r.status.Forget(m.uid)
}

// matcher returns the matcher that the last look at a DaemonSet used, nil before the first.
func (r *Reconciler) matcher(key types.NamespacedName) *placement.NodeMatcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.known[key]; m != nil {
		return m.match
	}
	return nil
}

// nodeEvents wakes the DaemonSets that a change of a node concerns: those whose pods may start or stay there now and couldn't before, or the other way
// round. All else about a node, such as its status, is none of theirs.
type nodeEvents struct{ r *Reconciler }

var _ handler.EventHandler = nodeEvents{}

// Create wakes the DaemonSets that want a pod on a new node, or have one there that shouldn't be.
func (h nodeEvents) Create(ctx context.Context, e event.CreateEvent, q kube.Queue) {
	if node, ok := e.Object.(*pcorev1.Node); ok {
		h.wake(ctx, nil, node, q)
	}
}

// Update wakes the DaemonSets to which the node is another one than before.
func (h nodeEvents) Update(ctx context.Context, e event.UpdateEvent, q kube.Queue) {
	before, ok := e.ObjectOld.(*pcorev1.Node)
	after, ok2 := e.ObjectNew.(*pcorev1.Node)
	if !ok || !ok2 || before.Spec.Unschedulable == after.Spec.Unschedulable && maps.Equal(before.Labels, after.Labels) &&
		equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
		return
	}
	h.wake(ctx, before, after, q)
}

// Delete wakes the DaemonSets that had a pod on the node.
func (h nodeEvents) Delete(ctx context.Context, e event.DeleteEvent, q kube.Queue) {
	if node, ok := e.Object.(*pcorev1.Node); ok {
		h.wake(ctx, node, nil, q)
	}
}

// Generic does nothing: no such event is sent.
func (h nodeEvents) Generic(context.Context, event.GenericEvent, kube.Queue) {}

func (h nodeEvents) wake(ctx context.Context, before, after *pcorev1.Node, q kube.Queue) {
	var sets pappsv1.DaemonSetList
	if err := h.r.client.List(ctx, &sets, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list the DaemonSets that a node may concern")
		return
	}
	var there map[types.UID]bool
	for i := range sets.Items {
		set := &sets.Items[i]
		key := client.ObjectKeyFromObject(set)
		m := h.r.matcher(key)
		switch {
		case m == nil: // not looked at yet; a look that is under way may have read the nodes already
		case before == nil && !m.Match(after).MayStay():
			if there == nil {
				there = h.owners(ctx, after.Name)
			}
			if !there[set.UID] {
				continue
			}
		case before == nil, after == nil:
		default:
			a, b := m.Match(before), m.Match(after)
			if a.MayStart() == b.MayStart() && a.MayStay() == b.MayStay() {
				continue
			}
		}
		q.AddAfter(reconcile.Request{NamespacedName: key}, kube.PodDelay)
	}
}

// owners returns the UIDs of the DaemonSets that have pods on a node.
func (h nodeEvents) owners(ctx context.Context, node string) map[types.UID]bool {
	out := map[types.UID]bool{}
	var pods pcorev1.PodList
	if err := h.r.client.List(ctx, &pods, client.MatchingFields{kube.ByNode: node}, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list the pods of a node", "node", node)
	}
	for i := range pods.Items {
		if ref := metav1.GetControllerOfNoCopy(&pods.Items[i]); ref != nil && ref.Kind == kind.Kind {
			out[ref.UID] = true
		}
	}
	return out
}

// adopters returns a function that finds the DaemonSets whose selector matches an orphan.
func adopters[T client.Object](r *Reconciler) func(context.Context, T) []reconcile.Request {
	return func(ctx context.Context, orphan T) []reconcile.Request {
		var list pappsv1.DaemonSetList
		if err := r.client.List(ctx, &list, client.InNamespace(orphan.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Failed to list DaemonSets that might adopt an object", "object", client.ObjectKeyFromObject(orphan))
			return nil
		}
		var out []reconcile.Request
		for i := range list.Items {
			selector, err := metav1.LabelSelectorAsSelector(list.Items[i].Spec.Selector)
			if err == nil && !selector.Empty() && selector.Matches(labels.Set(orphan.GetLabels())) {
				out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
			}
		}
		return out
	}
}
