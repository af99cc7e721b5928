// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package subresources is the aggregated API subresources.pinnace.dev/v1: log, exec, attach, portforward, eviction and the
// like of Pinnace's pods, which the API server gives no custom resource. It knows users by what the API server's front
// proxy says of them, asks whether they may do the thing to pods of core.pinnace.dev, and hands streams on to the agent
// of the pod's node (docs/adr/0036). Beside it stands metrics.pinnace.dev/v1beta1, what nodes and pods use (docs/adr/0091).
// internal/setup enters, in the manager's process.
package subresources
