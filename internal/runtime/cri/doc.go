// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cri drives a real container runtime through its Container Runtime Interface socket: containerd 2.x as
// Pinnace starts it, containerd 1.6 as a distribution ships it, or CRI-O. It speaks gRPC directly, without the
// tracing and logging layers of k8s.io/cri-client, since the agent's memory is a budget. Only internal/setup,
// benchmarks and tests enter; everybody else knows runtime.Service.
package cri
