// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Inspector is what a node's server asks of a runtime beside its pods' life. The rules of Runtime's methods hold here too;
// what a runtime can't do is answered with gRPC code Unimplemented.
type Inspector interface {
	// Exec, Attach and PortForward prepare a stream and return its URL on this machine, which is good for one
	// connection (SPDY, or WebSocket before v5) within a minute.
	Exec(ctx context.Context, request *runtimeapi.ExecRequest) (url string, err error)
	Attach(ctx context.Context, request *runtimeapi.AttachRequest) (url string, err error)
	PortForward(ctx context.Context, request *runtimeapi.PortForwardRequest) (url string, err error)

	// ReopenContainerLog makes the runtime write to a new file after the log was renamed.
	ReopenContainerLog(ctx context.Context, id string) error
	// ListContainerStats returns what the containers that match use; nil matches all.
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
	// ListPodSandboxStats returns what the sandboxes that match use; nil matches all.
	ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error)
	// CheckpointContainer writes a running container's state into a file, within the timeout (0: the runtime's own).
	CheckpointContainer(ctx context.Context, id, location string, timeout time.Duration) error
}
