// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// wake queues a service.
func wake(key types.NamespacedName, q kube.Queue) {
	q.AddAfter(reconcile.Request{NamespacedName: key}, gatherDelay)
}

// serviceEvents wakes a service when what its slices follow from has changed; its status is no part of that.
func (r *Reconciler) serviceEvents() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) {
			wake(client.ObjectKeyFromObject(e.Object), q)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			if e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) {
				wake(client.ObjectKeyFromObject(e.ObjectNew), q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) {
			r.own.Forget(e.Object.GetUID())
			wake(client.ObjectKeyFromObject(e.Object), q)
		},
	}
}

// endpointsEvents wakes the service of the same name.
func endpointsEvents() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) {
			wake(client.ObjectKeyFromObject(e.Object), q)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			wake(client.ObjectKeyFromObject(e.ObjectNew), q)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) {
			wake(client.ObjectKeyFromObject(e.Object), q)
		},
	}
}

// podEvents wakes the services that select a pod, before and after a change, when the change shows in a slice.
func (r *Reconciler) podEvents() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q kube.Queue) {
			if pod, ok := e.Object.(*pcorev1.Pod); ok && endpoints.Belongs(pod) {
				r.wakeSelectors(ctx, pod.Namespace, q, pod.Labels)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Pod)
			after, ok2 := e.ObjectNew.(*pcorev1.Pod)
			if !ok || !ok2 || !matters(before, after) {
				return
			}
			if maps.Equal(before.Labels, after.Labels) {
				r.wakeSelectors(ctx, after.Namespace, q, after.Labels)
				return
			}
			r.wakeSelectors(ctx, after.Namespace, q, before.Labels, after.Labels)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q kube.Queue) {
			if pod, ok := e.Object.(*pcorev1.Pod); ok && endpoints.Belongs(pod) {
				r.wakeSelectors(ctx, pod.Namespace, q, pod.Labels)
			}
		},
	}
}

// matters says whether a pod's change can show in a slice.
func matters(before, after *pcorev1.Pod) bool {
	was, is := endpoints.Belongs(before), endpoints.Belongs(after)
	if !was && !is {
		return false
	}
	return was != is ||
		endpoints.Ready(before) != endpoints.Ready(after) ||
		(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) ||
		before.Spec.NodeName != after.Spec.NodeName ||
		!equality.Semantic.DeepEqual(ips(before), ips(after)) ||
		!maps.Equal(before.Labels, after.Labels)
}

func ips(pod *pcorev1.Pod) []corev1.PodIP {
	if len(pod.Status.PodIPs) == 0 {
		return []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	return pod.Status.PodIPs
}

// wakeSelectors wakes the services of a namespace whose selector matches one of the label sets.
func (r *Reconciler) wakeSelectors(ctx context.Context, namespace string, q kube.Queue, sets ...map[string]string) {
	var services pcorev1.ServiceList
	if err := r.client.List(ctx, &services, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		// It comes from memory, so this is no failure that a retry would mend.
		log.FromContext(ctx).Error(err, "Listing the services that select a pod", "namespace", namespace)
		return
	}
	for i := range services.Items {
		service := &services.Items[i]
		if len(service.Spec.Selector) == 0 {
			continue
		}
		selector := labels.SelectorFromSet(service.Spec.Selector)
		for _, set := range sets {
			if selector.Matches(labels.Set(set)) {
				wake(client.ObjectKeyFromObject(service), q)
				break
			}
		}
	}
}
