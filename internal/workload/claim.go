// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Claim is what an owner does about objects that its selector matches or that name it as their controller.
type Claim[T metav1.Object] struct {
	// Owned are the owner's own objects, deleted ones included.
	Owned []T
	// Adopt are orphans that the selector matches: they become the owner's.
	Adopt []T
	// Release are the owner's objects that the selector doesn't match any longer: they become orphans.
	Release []T
}

// ClaimObjects sorts candidates, following upstream's ControllerRefManager (k8s.io/kubernetes
// pkg/controller/controller_ref_manager.go): an owner that is being deleted neither adopts nor releases; an object that
// is being deleted isn't adopted; an empty selector matches nothing.
func ClaimObjects[T metav1.Object](owner metav1.Object, selector labels.Selector, candidates []T) Claim[T] {
	var c Claim[T]
	deleting := owner.GetDeletionTimestamp() != nil
	for _, obj := range candidates {
		matches := !selector.Empty() && selector.Matches(labels.Set(obj.GetLabels()))
		ref := metav1.GetControllerOfNoCopy(obj)
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			c.Owned = append(c.Owned, obj)
		case ref != nil && !deleting:
			c.Release = append(c.Release, obj)
		case ref == nil && matches && !deleting && obj.GetDeletionTimestamp() == nil && obj.GetNamespace() == owner.GetNamespace():
			c.Adopt = append(c.Adopt, obj)
		}
	}
	return c
}
