// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

var _ runtime.Inspector = (*Client)(nil)

// Exec implements runtime.Inspector.
func (c *Client) Exec(ctx context.Context, request *runtimeapi.ExecRequest) (string, error) {
	response, err := c.runtime.Exec(ctx, request)
	if err != nil {
		return "", err
	}
	return response.GetUrl(), nil
}

// Attach implements runtime.Inspector.
func (c *Client) Attach(ctx context.Context, request *runtimeapi.AttachRequest) (string, error) {
	response, err := c.runtime.Attach(ctx, request)
	if err != nil {
		return "", err
	}
	return response.GetUrl(), nil
}

// PortForward implements runtime.Inspector.
func (c *Client) PortForward(ctx context.Context, request *runtimeapi.PortForwardRequest) (string, error) {
	response, err := c.runtime.PortForward(ctx, request)
	if err != nil {
		return "", err
	}
	return response.GetUrl(), nil
}

// ReopenContainerLog implements runtime.Inspector.
func (c *Client) ReopenContainerLog(ctx context.Context, id string) error {
	_, err := c.runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	return err
}

// ListContainerStats implements runtime.Inspector.
func (c *Client) ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	response, err := c.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{Filter: filter})
	if err != nil {
		return nil, err
	}
	return response.GetStats(), nil
}

// ListPodSandboxStats implements runtime.Inspector.
func (c *Client) ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	response, err := c.runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{Filter: filter})
	if err != nil {
		return nil, err
	}
	return response.GetStats(), nil
}

// CheckpointContainer implements runtime.Inspector.
func (c *Client) CheckpointContainer(ctx context.Context, id, location string, timeout time.Duration) error {
	_, err := c.runtime.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{
		ContainerId: id, Location: location, Timeout: wholeSeconds(timeout),
	})
	return err
}
