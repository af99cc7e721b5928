// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package usage reads from /proc what a process uses: CPU time and memory. Benchmarks may enter.
package usage
