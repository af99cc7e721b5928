// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dataplane keeps the packet rules of one node: it watches services, their slices and the node's own pods, and hands
// what changed to internal/dataplane. It runs in the agent, in the node's network namespace. What the rules are is decided
// in internal/ruleset, which is why there is no plan.go here.
package dataplane
