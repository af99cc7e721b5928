// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// scaleOf returns how many pods the controller of a pod wants: of Pinnace's workloads by the cache, of any other kind by its scale
// subresource.
func (r *Reconciler) scaleOf(ctx context.Context, namespace string, ref *metav1.OwnerReference) scale {
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	key := client.ObjectKey{Namespace: namespace, Name: ref.Name}
	switch gvk.GroupKind() {
	case schema.GroupKind{Group: pappsv1.GroupVersion.Group, Kind: "ReplicaSet"}:
		return r.scaleOfReplicaSet(ctx, key, ref)
	case schema.GroupKind{Group: pappsv1.GroupVersion.Group, Kind: "StatefulSet"}:
		var set pappsv1.StatefulSet
		return r.cached(ctx, key, ref, &set, func() *int32 { return set.Spec.Replicas })
	case schema.GroupKind{Group: pcorev1.GroupVersion.Group, Kind: "ReplicationController"}:
		var rc pcorev1.ReplicationController
		return r.cached(ctx, key, ref, &rc, func() *int32 { return rc.Spec.Replicas })
	}
	return r.subresource(ctx, gvk, key, ref)
}

// scaleOfReplicaSet returns the scale of the Deployment that owns the ReplicaSet, or its own when it has none.
func (r *Reconciler) scaleOfReplicaSet(ctx context.Context, key client.ObjectKey, ref *metav1.OwnerReference) scale {
	var rs pappsv1.ReplicaSet
	own := r.cached(ctx, key, ref, &rs, func() *int32 { return rs.Spec.Replicas })
	if own.problem != "" {
		return own
	}
	up := metav1.GetControllerOfNoCopy(&rs)
	if up == nil {
		return own
	}
	gvk := schema.FromAPIVersionAndKind(up.APIVersion, up.Kind)
	key.Name = up.Name
	if gvk.Group == pappsv1.GroupVersion.Group && gvk.Kind == "Deployment" {
		var d pappsv1.Deployment
		return r.cached(ctx, key, up, &d, func() *int32 { return d.Spec.Replicas })
	}
	// Another operator's ReplicaSets, such as those of a canary: the sum is what the owner wants.
	if above := r.subresource(ctx, gvk, key, up); above.problem == "" {
		return above
	}
	return own
}

// cached reads an owner from the cache. A field that is left out means 1.
func (r *Reconciler) cached(ctx context.Context, key client.ObjectKey, ref *metav1.OwnerReference, obj client.Object, replicas func() *int32) scale {
	err := r.client.Get(ctx, key, obj, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err) || err == nil && obj.GetUID() != ref.UID:
		return scale{problem: gone(ref)}
	case err != nil:
		return scale{problem: fmt.Sprintf("%s %s can't be read: %v.", ref.Kind, ref.Name, err)}
	}
	if n := replicas(); n != nil {
		return scale{owner: ref.UID, want: *n}
	}
	return scale{owner: ref.UID, want: 1}
}

// subresource asks the API server for the scale of an object of any kind.
func (r *Reconciler) subresource(ctx context.Context, gvk schema.GroupVersionKind, key client.ObjectKey, ref *metav1.OwnerReference) scale {
	owner, answer := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	owner.SetGroupVersionKind(gvk)
	owner.SetNamespace(key.Namespace)
	owner.SetName(key.Name)
	answer.SetGroupVersionKind(schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"})
	err := r.client.SubResource("scale").Get(ctx, owner, answer)
	switch {
	case meta.IsNoMatchError(err):
		return scale{problem: unscalable(ref), permanent: true}
	case apierrors.IsNotFound(err):
		// Either the owner is gone, or its kind has no such subresource: the answers look alike.
		if has, err := r.hasScale(gvk); err != nil || has {
			return scale{problem: gone(ref)}
		}
		return scale{problem: unscalable(ref), permanent: true}
	case err != nil:
		return scale{problem: fmt.Sprintf("The scale of %s %s can't be read: %v.", ref.Kind, ref.Name, err)}
	case answer.GetUID() != "" && answer.GetUID() != ref.UID:
		return scale{problem: gone(ref)}
	}
	n, _, err := unstructured.NestedInt64(answer.Object, "spec", "replicas")
	if err != nil {
		return scale{problem: fmt.Sprintf("The scale of %s %s can't be read: %v.", ref.Kind, ref.Name, err)}
	}
	return scale{owner: ref.UID, want: int32(n)} //nolint:gosec // the API server checked that it is an int32
}

// hasScale asks discovery whether a kind has the subresource scale.
func (r *Reconciler) hasScale(gvk schema.GroupVersionKind) (bool, error) {
	list, err := r.discovery.ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if err != nil {
		return false, fmt.Errorf("discovering the resources of %s: %w", gvk.GroupVersion(), err)
	}
	names := map[string]bool{}
	for i := range list.APIResources {
		names[list.APIResources[i].Name] = true
	}
	for i := range list.APIResources {
		if list.APIResources[i].Kind == gvk.Kind && names[list.APIResources[i].Name+"/scale"] {
			return true, nil
		}
	}
	return false, nil
}

func gone(ref *metav1.OwnerReference) string {
	return fmt.Sprintf("%s %s, which controls a pod, isn't there.", ref.Kind, ref.Name)
}

func unscalable(ref *metav1.OwnerReference) string {
	return fmt.Sprintf("%s %s can't be scaled, so a share of its pods can't be counted: write spec.minAvailable as a number.", ref.Kind, ref.Name)
}
