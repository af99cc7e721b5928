// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package eviction decides when a node lacks memory, disk or process IDs, what it says of that, and which pod has to go. The rules, the
// order and the words are upstream's (k8s.io/kubernetes pkg/kubelet/eviction). Everything is pure: readings and the time
// come in, verdicts go out. controllers/agent enters to evict, internal/setup to read flags, and whoever reads a machine to
// name what it reads.
package eviction
