// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package up runs the whole of Pinnace on one machine: the control plane, the registry, a containerd for each node, the
// manager and the agents, started in order, supervised, and stopped in the reverse order. It stands on the floor of
// internal/setup: it joins adapters and holds no rule of Kubernetes. Only cmd/pinnace enters.
package up
