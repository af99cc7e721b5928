// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package setup says which controllers run in which process, over which caches. It wires and holds no logic: a rule of
// Kubernetes that is looked for here is in a room below. cmd/pinnace and tests enter.
package setup
