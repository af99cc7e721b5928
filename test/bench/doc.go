// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures what Pinnace costs on this machine: start → node Ready, memory and CPU at rest of each
// process, and create → 20 of 20 Ready beside CRI's own floor, which is measured in the same run, in turns, by a program
// that only calls CRI. It prints one table and writes one JSON file. Numbers are medians; run it on a quiet machine.
//
//	make bench
package main
