// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Of a container whose process ends by itself while it is being stopped, containerd answers at once that it is stopped, and says
// for some milliseconds more that it runs: looking again within these would stop it again and again.
const (
	endSeenWithin = 5 * time.Second
	endLookEvery  = 20 * time.Millisecond
)

// awaitEnd waits until the runtime says of a stopped container that it runs no more, or can't be asked, but not for long.
func (n *nodeState) awaitEnd(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, endSeenWithin)
	defer cancel()
	for ctx.Err() == nil {
		now, err := n.Runtime.ContainerStatus(ctx, id)
		if err != nil || now.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			return
		}
		sleep(ctx, endLookEvery)
	}
}
