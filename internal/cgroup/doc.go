// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cgroup removes the control groups that pods leave behind: a runtime makes the parent of a sandbox's cgroups and
// never removes it. Version 1 (one tree per controller), version 2 and the hybrid of both are met. Only
// controllers/agent enters. The package is for Linux.
package cgroup
