// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

const (
	// ByController is the index of objects by the UID of their controller; Orphan stands for none.
	ByController = "pinnace.controllerUID"
	// ByNode is the index of pods by spec.nodeName.
	ByNode = "spec.nodeName"
	// Orphan is the value of ByController for an object without a controller.
	Orphan = "none"
)

// ControllerIndex is the index function of ByController.
func ControllerIndex(obj client.Object) []string {
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		return []string{string(ref.UID)}
	}
	return []string{Orphan}
}

// NodeIndex is the index function of ByNode.
func NodeIndex(obj client.Object) []string {
	pod, ok := obj.(*pcorev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return nil
	}
	return []string{pod.Spec.NodeName}
}

// AddIndexes declares the indexes that the workload controllers read. It must be called once for a manager, before its
// cache starts; internal/setup does it.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	for _, index := range []struct {
		obj   client.Object
		field string
		value client.IndexerFunc
	}{
		{&pcorev1.Pod{}, ByController, ControllerIndex},
		{&pcorev1.Pod{}, ByNode, NodeIndex},
		{&pappsv1.ReplicaSet{}, ByController, ControllerIndex},
		{&pbatchv1.Job{}, ByController, ControllerIndex},
		{&pappsv1.ControllerRevision{}, ByController, ControllerIndex},
	} {
		if err := indexer.IndexField(ctx, index.obj, index.field, index.value); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", index.obj, index.field, err)
		}
	}
	return nil
}
