// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/pinnace-dev/pinnace/internal/workload"
)

// Claim carries out what workload.ClaimObjects decided: it adopts orphans and releases what no longer matches. owner is the
// controller's cached object; live reads it from the API server, because adopting for an owner that is already gone
// would hide the orphan from its next owner. It returns the owner's objects, the adopted ones included. Objects
// that vanished or changed meanwhile are left for the next look. Finalizers are the owner's: adopting adds them, releasing
// takes them away.
func Claim[T client.Object](ctx context.Context, c client.Client, live client.Reader, owner client.Object, gvk schema.GroupVersionKind,
	claim workload.Claim[T], finalizers ...string,
) ([]T, error) {
	owned := claim.Owned
	var failures []error
	if len(claim.Adopt) > 0 {
		if err := stillThere(ctx, live, owner); err != nil {
			return owned, err
		}
	}
	for _, obj := range claim.Adopt {
		adopted := deepCopy(obj)
		refs := append([]metav1.OwnerReference{}, obj.GetOwnerReferences()...)
		adopted.SetOwnerReferences(append(refs, *metav1.NewControllerRef(owner, gvk)))
		for _, f := range finalizers {
			controllerutil.AddFinalizer(adopted, f)
		}
		if err := Patch(ctx, c, adopted, obj); err == nil {
			owned = append(owned, adopted)
		} else if !apierrors.IsNotFound(err) {
			failures = append(failures, fmt.Errorf("adopting %s: %w", obj.GetName(), err))
		}
	}
	for _, obj := range claim.Release {
		released := deepCopy(obj)
		released.SetOwnerReferences(withoutOwner(obj.GetOwnerReferences(), owner))
		for _, f := range finalizers {
			controllerutil.RemoveFinalizer(released, f)
		}
		if err := Patch(ctx, c, released, obj); err != nil && !apierrors.IsNotFound(err) {
			failures = append(failures, fmt.Errorf("releasing %s: %w", obj.GetName(), err))
		}
	}
	return owned, errors.Join(failures...)
}

// stillThere is an error unless the API server has the owner, alive, under the same UID.
func stillThere(ctx context.Context, live client.Reader, owner client.Object) error {
	fresh := deepCopy(owner)
	if err := live.Get(ctx, client.ObjectKeyFromObject(owner), fresh); err != nil {
		return fmt.Errorf("reading %s before adopting: %w", owner.GetName(), err)
	}
	if fresh.GetUID() != owner.GetUID() || fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s isn't there any longer, so it adopts nothing", owner.GetName())
	}
	return nil
}

// deepCopy copies an object that is about to be written. A shallow copy won't do: the answer is decoded into it, and so
// into everything that it shares with the cache.
func deepCopy[T client.Object](obj T) T {
	out, ok := obj.DeepCopyObject().(T)
	if !ok {
		panic(fmt.Sprintf("the deep copy of a %T is no %T", obj, obj)) // generated code can't do that
	}
	return out
}

func withoutOwner(refs []metav1.OwnerReference, owner metav1.Object) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, ref := range refs {
		if ref.UID != owner.GetUID() {
			out = append(out, ref)
		}
	}
	return out
}

// Patch sends the difference between two states of an object as a merge patch, to be taken only if the object is still
// at before's resource version. Fields that this program doesn't know stay as they are, which a PUT of a
// typed object wouldn't grant. after holds the answer.
func Patch(ctx context.Context, c client.Client, after, before client.Object) error {
	return c.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}
