// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package runtime is the narrow port through which the node agent drives a container runtime. Its messages are the
// Container Runtime Interface's own (k8s.io/cri-api), so that a rule of CRI is looked up in one place; its
// implementations are the adapters runtime/cri (a real runtime over its socket) and runtime/fake (in memory, for
// simulated nodes and tests). Only controllers/agent and internal/setup enter.
package runtime
