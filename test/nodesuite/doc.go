// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodesuite holds the agent to what upstream documents of a pod's life, on real containers: one machine with an API server, a
// container runtime and the agent as a process of its own, on which the cases of testdata/*.yaml run side by side, then the stories that
// disturb the machine, and the chaos test. docs/node-suite.md says how to write a case. It needs root. Nothing imports it.
package nodesuite
