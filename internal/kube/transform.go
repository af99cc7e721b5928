// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// Slim is the cache's transform: it drops what no controller reads and what doubles an object's size, managedFields and
// the last applied configuration. A controller that writes an object back must therefore patch its metadata, or
// reset managedFields on purpose; a PUT without managedFields leaves them as they are.
func Slim(obj any) (any, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil // a tombstone; its object was slimmed when it came in
	}
	if accessor.GetManagedFields() != nil {
		accessor.SetManagedFields(nil)
	}
	if annotations := accessor.GetAnnotations(); annotations[corev1.LastAppliedConfigAnnotation] != "" {
		delete(annotations, corev1.LastAppliedConfigAnnotation)
	}
	return obj, nil
}
