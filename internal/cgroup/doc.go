// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cgroup makes the control groups of pods with their limits, reads what they use, and removes what pods leave behind: a
// runtime makes the parent of a sandbox's cgroups bare and never removes it. Version 1 (one tree per controller), version
// 2 and the hybrid of both are met. Only controllers/agent and internal/setup enter. The package is for Linux.
package cgroup
