// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Queue is the queue of a controller.
type Queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Gone is an event handler that has what is remembered of an object forgotten when the object is gone. It wakes nobody.
func Gone(forget ...func(types.UID)) handler.EventHandler {
	return handler.Funcs{DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ Queue) {
		for _, f := range forget {
			f(e.Object.GetUID())
		}
	}}
}

// Owned is an event handler that wakes the owner of a changed object.
type Owned[T client.Object] struct {
	// Owner is the owner's kind.
	Owner schema.GroupVersionKind
	// Delay lets several changes share one look. They are many: a thousand pods that become ready are a thousand changes of
	// one owner.
	Delay time.Duration
	// DelayOf, if given, is asked for the delay of one owner in place of Delay.
	DelayOf func(owner types.UID) time.Duration
	// Matters says whether a change of an object can change what its owner does. Nil means that every change does.
	Matters func(before, after T) bool
	// Adopters returns the owners that might adopt an orphan.
	Adopters func(ctx context.Context, orphan T) []reconcile.Request
	// Own is told about objects that are gone.
	Own *Overlay[T]
}

var _ handler.EventHandler = Owned[client.Object]{}

// Create wakes the owner of a new object.
func (h Owned[T]) Create(ctx context.Context, e event.CreateEvent, q Queue) {
	if obj, ok := e.Object.(T); ok {
		h.wake(ctx, obj, q)
	}
}

// Update wakes the owners of an object that changed, before and after.
func (h Owned[T]) Update(ctx context.Context, e event.UpdateEvent, q Queue) {
	before, ok := e.ObjectOld.(T)
	after, ok2 := e.ObjectNew.(T)
	if !ok || !ok2 || before.GetResourceVersion() == after.GetResourceVersion() {
		return
	}
	old, now := metav1.GetControllerOfNoCopy(before), metav1.GetControllerOfNoCopy(after)
	if old != nil && (now == nil || now.UID != old.UID) {
		h.wakeOwner(before.GetNamespace(), old, q)
	}
	if h.Matters == nil || h.Matters(before, after) {
		h.wake(ctx, after, q)
	}
}

// Delete wakes the owner of an object that is gone.
func (h Owned[T]) Delete(_ context.Context, e event.DeleteEvent, q Queue) {
	obj, ok := e.Object.(T)
	if !ok {
		return
	}
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		if h.Own != nil {
			h.Own.Gone(ref.UID, obj.GetUID())
		}
		h.wakeOwner(obj.GetNamespace(), ref, q)
	}
}

// Generic wakes the owner of an object of which a Relay tells.
func (h Owned[T]) Generic(ctx context.Context, e event.GenericEvent, q Queue) {
	if obj, ok := e.Object.(T); ok {
		h.wake(ctx, obj, q)
	}
}

func (h Owned[T]) wake(ctx context.Context, obj T, q Queue) {
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		h.wakeOwner(obj.GetNamespace(), ref, q)
		return
	}
	if h.Adopters == nil || obj.GetDeletionTimestamp() != nil {
		return
	}
	for _, req := range h.Adopters(ctx, obj) {
		q.AddAfter(req, h.Delay)
	}
}

func (h Owned[T]) wakeOwner(namespace string, ref *metav1.OwnerReference, q Queue) {
	if ref.Kind != h.Owner.Kind {
		return
	}
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err != nil || gv.Group != h.Owner.Group {
		return
	}
	delay := h.Delay
	if h.DelayOf != nil {
		delay = h.DelayOf(ref.UID)
	}
	q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: ref.Name}}, delay)
}
