// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// tellMost bounds how long it takes to tell the API server that a node goes down.
const tellMost = 3 * time.Second

// GoDown tells of all nodes that they go down: from now on they aren't Ready. It returns when that is told, as the cache shows it.
func (r *Reconciler) GoDown(ctx context.Context) error {
	r.mu.Lock()
	queue := r.queue
	var names []string
	for name, n := range r.nodes {
		n.down = true
		names = append(names, name)
	}
	r.mu.Unlock()
	if queue == nil {
		return nil // It hasn't begun to tell anything.
	}
	for _, name := range names {
		queue.Add(request(name))
	}
	for _, name := range names {
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, tellMost, true, func(ctx context.Context) (bool, error) {
			object := &pcorev1.Node{}
			if err := r.client.Get(ctx, request(name).NamespacedName, object); err != nil {
				return false, err
			}
			return !isReady(&object.Status), nil
		})
		if err != nil {
			return fmt.Errorf("telling that node %s goes down: %w", name, err)
		}
	}
	return nil
}
