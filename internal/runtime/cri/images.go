// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageStatus implements runtime.Images.
func (c *Client) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	response, err := c.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: image})
	if status.Code(err) == codes.NotFound { // CRI asks for an empty answer; not every runtime obeys.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return response.GetImage(), nil
}

// PullImage implements runtime.Images.
func (c *Client) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	response, err := c.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: image, Auth: auth, SandboxConfig: sandbox})
	if err != nil {
		return "", err
	}
	return response.GetImageRef(), nil
}

// ListImages implements runtime.Images.
func (c *Client) ListImages(ctx context.Context) ([]*runtimeapi.Image, error) {
	response, err := c.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	return response.GetImages(), nil
}

// RemoveImage implements runtime.Images.
func (c *Client) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	_, err := c.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: image})
	return err
}

// ImageFsInfo implements runtime.Images.
func (c *Client) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return c.images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
}
