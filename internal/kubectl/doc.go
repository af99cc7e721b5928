// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubectl is kubectl's own commands on Pinnace's kinds: kubectl pinnace logs, exec, cp, top, rollout and the like.
// It holds no command of its own. Between kubectl's commands and the API server stands a transport that applies the
// suffix rule to paths, discovery and objects, so that Pinnace's pods look like Kubernetes' own to kubectl, and
// subresources.pinnace.dev like their subresources (docs/adr/0090). cmd/kubectl-pinnace enters, and nobody else: the
// manager and the agents are to stay small.
package kubectl
