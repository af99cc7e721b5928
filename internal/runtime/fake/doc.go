// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fake is the runtime port in memory: for simulated nodes, thousands in one process, and for tests.
//
// Sandboxes get addresses from the node's pod CIDR, containers start at once and run until they are stopped, told to
// end (Runtime.Exit), or end by themselves as Behaviour says; init containers end at once with 0. Images are present
// unless told otherwise. Nothing is kept over a restart of the process. At rest a pod costs no goroutine and no timer.
// internal/setup and tests may enter.
package fake
