// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machine reads what this machine has and has left: memory, process IDs, file systems, huge pages. controllers/agent and its rooms
// enter. The package is for Linux.
package machine
