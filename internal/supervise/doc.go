// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package supervise keeps child processes alive: it starts them, waits until
// they are ready, starts them again with a growing delay when they die, and
// gives up with a clear error when they die too often.
//
// The room knows processes, pid files and log files of this machine, and
// nothing of Kubernetes. What a process is stands behind Runner: Process runs
// a program directly; internal/controlplane brings runners of its own that go
// through envtest.
//
// Every adapter that needs a long-lived child process may enter, and so may
// internal/setup and cmd. The room imports nothing of this module.
package supervise
