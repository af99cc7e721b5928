// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// renumbered says whether a revision took another place in its history.
func renumbered(before, after *pappsv1.ControllerRevision) bool {
	return before.Revision != after.Revision
}

// podAdopters returns the StatefulSets whose selector and name match an orphaned pod.
func (r *Reconciler) podAdopters(ctx context.Context, pod *pcorev1.Pod) []reconcile.Request {
	var list pappsv1.StatefulSetList
	if err := r.client.List(ctx, &list, client.InNamespace(pod.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Failed to list StatefulSets that might adopt a pod", "pod", client.ObjectKeyFromObject(pod))
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		set := &list.Items[i]
		if ordinalOf(set.Name, pod.Name) < 0 {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(set)})
		}
	}
	return out
}

// claimHandler wakes the sets that a claim may be of. The claim's name tells, because only some claims have an owner.
func (r *Reconciler) claimHandler() handler.EventHandler {
	wake := func(ctx context.Context, claim client.Object, gone bool, q kube.Queue) {
		for _, set := range r.claimOwners(ctx, claim) {
			if gone {
				r.claims.Gone(set.UID, claim.GetUID())
			}
			q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(set)}, kube.PodDelay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q kube.Queue) { wake(ctx, e.Object, false, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q kube.Queue) {
			if e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion() {
				wake(ctx, e.ObjectNew, false, q)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q kube.Queue) { wake(ctx, e.Object, true, q) },
	}
}

// classHandler wakes the sets whose claims are of a class, because it may allow them to grow from now on.
func (r *Reconciler) classHandler() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, obj client.Object) []reconcile.Request {
		class, ok := obj.(*pstoragev1.StorageClass)
		if !ok || class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
			return nil
		}
		var list pappsv1.StatefulSetList
		if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Failed to list the StatefulSets whose claims might grow", "class", class.Name)
			return nil
		}
		var out []reconcile.Request
		for i := range list.Items {
			for j := range list.Items[i].Status.Claims {
				if list.Items[i].Status.Claims[j].Message != "" { // its claims wait for something
					out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
					break
				}
			}
		}
		return out
	})
}
