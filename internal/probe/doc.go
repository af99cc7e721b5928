// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package probe asks a container once how it is: by a command, HTTP, TCP or gRPC, with the kubelet's rules of what counts as
// success. When to ask and what follows from the answers is the caller's. Only controllers/agent enters, which also calls
// lifecycle hooks by it.
package probe
