// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package daemonset runs one pod of every DaemonSet on each node that its template matches. It decides which nodes those are and pins each pod to
// its node by a required affinity; placement binds it there, since only placement knows what else is free on the node (docs/adr/0058).
// The package is the only writer of a DaemonSet's status, its ControllerRevisions, and the only maker of its pods. A pod's name depends on the
// DaemonSet's UID, the node's name and a slot number, so that a creation that is repeated after a crash meets the pod that is there already.
// Only internal/setup enters.
package daemonset
