// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package version names this build. Every room may read it.
package version

// Version is set by the linker; see the Makefile.
var Version = "dev"
