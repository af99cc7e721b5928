// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package stray finds and ends what containerd has made on this machine and may have forgotten, because it was killed in the middle
// of it: shims, network namespaces, folders of bundles. It says what there is; who decides what goes is controllers/agent/keep.
//
// It looks only where nothing can be another's: at shims that were started with this containerd's socket and CRI's namespace, and into
// this containerd's own state folder, both as containerd itself names them over CRI. Of a runtime that doesn't name them, and of network
// namespaces in the folder that all of a machine share, it sees nothing. Only controllers/agent and internal/setup enter. The package
// is for Linux.
package stray
