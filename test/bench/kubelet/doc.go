// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kubelet measures one node's part of Pinnace beside upstream's: the agent with Pinnace pods and the kubelet with native pods, in turns, on the
// same containerd, the same API server and with the same image, beside CRI's own floor. It shows the time from a pod's creation to Ready, one at a time and
// many at once, the CPU that a start costs over all processes, memory with few and with many pods, CPU at rest, and the writes of a start.
//
// Pods are made with their node's name, so that no scheduler is part of it on either side. It needs root and what `make peers` builds.
//
//	go run ./test/bench/kubelet
package main
