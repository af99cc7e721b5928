// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package containerd knows how one node's containerd is configured and started: its folders, its config.toml, its
// arguments and its environment. It starts nothing itself (internal/supervise does that) and speaks no CRI
// (internal/runtime/cri does). cmd/pinnace and internal/setup enter, and tests and benchmarks that need a runtime.
//
// A runtime that the user brings (--runtime-endpoint) gets no configuration from here: it belongs to the machine.
package containerd
