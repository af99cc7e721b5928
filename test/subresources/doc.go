// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package subresources tests log, exec, attach, port-forward and the other subresources from a client of the API server to a
// real container and back, over WebSocket and SPDY, and that whoever may not gets nothing. It needs root.
package subresources
