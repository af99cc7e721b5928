// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// Known returns the UIDs of the pods that belong on a node: those that the API server has, and those that the agent still ends. Images
// are the names of the images that pods which haven't ended need; one of them is not to be thrown away.
func (r *Reconciler) Known(ctx context.Context, node string) (uids map[types.UID]bool, images []string, err error) {
	var list pcorev1.PodList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("listing the node's pods: %w", err)
	}
	uids = r.records.uids()
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Spec.NodeName != node {
			continue
		}
		uids[pod.UID] = true
		if !podstate.IsTerminal(pod.Status.Phase) {
			images = appendImages(images, pod)
		}
	}
	for _, pod := range r.staticOf() {
		uids[pod.UID] = true
		images = appendImages(images, pod)
	}
	slices.Sort(images)
	return uids, slices.Compact(images), nil
}

func appendImages(images []string, pod *pcorev1.Pod) []string {
	spec := &pod.Spec.PodSpec
	for i := range spec.InitContainers {
		images = append(images, spec.InitContainers[i].Image)
	}
	for i := range spec.Containers {
		images = append(images, spec.Containers[i].Image)
	}
	for i := range spec.EphemeralContainers {
		images = append(images, spec.EphemeralContainers[i].Image)
	}
	for i := range spec.Volumes {
		if spec.Volumes[i].Image != nil {
			images = append(images, spec.Volumes[i].Image.Reference)
		}
	}
	return images
}

// uids of all records.
func (r *records) uids() map[types.UID]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[types.UID]bool, len(r.byUID))
	for uid := range r.byUID {
		out[uid] = true
	}
	return out
}
