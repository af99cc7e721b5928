// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent is the node agent's suite: the same stories on the fake runtime and, where root and the assets are there, on
// containerd with a real API server. Stories that need real processes run on containerd alone. Nothing imports it.
package agent
