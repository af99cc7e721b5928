// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kube is the adapter to the API server that the controllers share: writing a status only when it changed, passing
// one on before it is written, seeing one's own writes before the cache does, spacing writes out, creating and deleting pods in growing batches,
// the shell of the kinds that keep a number of equal pods, snapshots of config, indexes, the cache's transform, clients whose writes don't share a connection with the watches, and the client that has
// pods placed as it makes them. It knows no
// rule of any kind. Controllers and internal/setup may enter.
package kube
