// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package placement decides which node a pod goes to. Cluster holds what is known about nodes and the pods on them, as columns of
// numbers that are kept up to date one change at a time; filters say node by node why a pod doesn't fit, scores say where it
// fits best. The package is pure and deterministic: the same cluster and the same pod lead to the same node. Only
// controllers/placement enters, and what explains a pending pod to people.
package placement
