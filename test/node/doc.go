// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node starts a real container runtime in a temporary folder for tests and benchmarks: containerd from the
// assets, the image registry with its certificates, the pause image, and a pod network. It needs root. Stop removes
// everything that it made. Tests and benchmarks enter.
package node
