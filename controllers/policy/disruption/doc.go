// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package disruption counts for each PodDisruptionBudget the pods that it selects and says in its status how many of them may be disrupted
// now. The rules are upstream's (k8s.io/kubernetes pkg/controller/disruption); those that evictions share stand in internal/disruption. It
// writes the status together with whoever evicts, each over the resource version: see there. Only internal/setup enters.
package disruption
