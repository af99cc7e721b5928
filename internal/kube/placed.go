// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Placer chooses nodes for pods that are about to be made. All methods may be called concurrently.
type Placer interface {
	// Promise puts the pod on a node, in the object alone, and holds room for it there. A pod that it leaves alone is placed after its creation.
	// It returns whether Settle must be called.
	Promise(pod *pcorev1.Pod) bool
	// Settle says how the creation of a pod ended that was promised room: the pod as the API server answered, or an error.
	Settle(pod *pcorev1.Pod, err error)
}

// WithPlacer returns a client that asks a Placer before it creates a pod, so that a pod with room on a node is made and bound by
// one write. Everything else passes through. docs/adr/0060 says why.
func WithPlacer(c client.Client, p Placer) client.Client { return &placed{c, p} }

type placed struct {
	client.Client
	placer Placer
}

// Create creates an object, and a pod on a node if there is one for it. After an error a pod is as it was before.
func (c *placed) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	pod, ok := obj.(*pcorev1.Pod)
	if !ok || dryRun(opts) {
		return c.Client.Create(ctx, obj, opts...)
	}
	asked := struct {
		name, namespace, node string
		finalizers            []string
	}{pod.Name, pod.Namespace, pod.Spec.NodeName, pod.Finalizers}
	if !c.placer.Promise(pod) {
		return c.Client.Create(ctx, obj, opts...)
	}
	err := c.Client.Create(ctx, pod, opts...)
	if err != nil {
		pod.Name, pod.Namespace, pod.Spec.NodeName, pod.Finalizers = asked.name, asked.namespace, asked.node, asked.finalizers
	}
	c.placer.Settle(pod, err)
	return err
}

func dryRun(opts []client.CreateOption) bool {
	var all client.CreateOptions
	return len(all.ApplyOptions(opts).DryRun) > 0
}
