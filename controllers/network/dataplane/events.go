// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

func (r *Reconciler) dirtyService(key types.NamespacedName, q kube.Queue) {
	r.mu.Lock()
	r.services[key] = true
	r.mu.Unlock()
	q.AddAfter(request, debounce)
}

// serviceEvents: of a service's status only the load balancer's addresses and a stall show in the rules.
func (r *Reconciler) serviceEvents() handler.EventHandler {
	wake := func(obj client.Object, q kube.Queue) { r.dirtyService(client.ObjectKeyFromObject(obj), q) }
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { wake(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Service)
			after, ok2 := e.ObjectNew.(*pcorev1.Service)
			if ok && ok2 && (before.Generation != after.Generation || endpoints.Stalled(before) != endpoints.Stalled(after) ||
				!equality.Semantic.DeepEqual(before.Status.LoadBalancer, after.Status.LoadBalancer)) {
				wake(after, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) { wake(e.Object, q) },
	}
}

func (r *Reconciler) sliceEvents() handler.EventHandler {
	wake := func(obj client.Object, q kube.Queue) {
		if name := obj.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
			r.dirtyService(types.NamespacedName{Namespace: obj.GetNamespace(), Name: name}, q)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { wake(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			wake(e.ObjectNew, q)
			if e.ObjectOld.GetLabels()[discoveryv1.LabelServiceName] != e.ObjectNew.GetLabels()[discoveryv1.LabelServiceName] {
				wake(e.ObjectOld, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) { wake(e.Object, q) },
	}
}

// podEvents: most pods have no host ports and pass by.
func (r *Reconciler) podEvents() handler.EventHandler {
	wake := func(obj client.Object, q kube.Queue) {
		if pod, ok := obj.(*pcorev1.Pod); ok && r.hasHostPorts(pod) {
			r.mu.Lock()
			r.pods[client.ObjectKeyFromObject(pod)] = true
			r.mu.Unlock()
			q.AddAfter(request, debounce)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { wake(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Pod)
			after, ok2 := e.ObjectNew.(*pcorev1.Pod)
			if ok && ok2 && (before.Spec.NodeName != after.Spec.NodeName || before.Status.Phase != after.Status.Phase ||
				before.Status.PodIP != after.Status.PodIP || !slices.Equal(before.Status.PodIPs, after.Status.PodIPs)) {
				wake(after, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q kube.Queue) { wake(e.Object, q) },
	}
}

// nodeEvents: only the node's own pod networks matter.
func (r *Reconciler) nodeEvents() handler.EventHandler {
	wake := func(obj client.Object, q kube.Queue) {
		if obj.GetName() == r.node {
			q.AddAfter(request, debounce)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q kube.Queue) { wake(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q kube.Queue) {
			before, ok := e.ObjectOld.(*pcorev1.Node)
			after, ok2 := e.ObjectNew.(*pcorev1.Node)
			if ok && ok2 && !slices.Equal(before.Spec.PodCIDRs, after.Spec.PodCIDRs) {
				wake(after, q)
			}
		},
	}
}
