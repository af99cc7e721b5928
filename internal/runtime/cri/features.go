// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

var _ runtime.Featured = (*Client)(nil)

// Features implements runtime.Featured. containerd 1.6 names no handlers and so has no features.
func (c *Client) Features(ctx context.Context) (runtime.Features, error) {
	response, err := c.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return runtime.Features{}, err
	}
	out := runtime.Features{SupplementalGroupsPolicy: response.GetFeatures().GetSupplementalGroupsPolicy()}
	byDefault := func(h *runtimeapi.RuntimeHandler) bool { return h.GetName() == "" }
	if i := slices.IndexFunc(response.GetRuntimeHandlers(), byDefault); i >= 0 {
		features := response.GetRuntimeHandlers()[i].GetFeatures()
		out.RecursiveReadOnlyMounts, out.UserNamespaces = features.GetRecursiveReadOnlyMounts(), features.GetUserNamespaces()
	}
	return out, nil
}
