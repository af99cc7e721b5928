// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodeserver is the HTTPS server of a node's agent: logs, exec, attach, port-forward, statistics and metrics, at the
// kubelet's paths and with its parameters, so that what talks to a kubelet can talk to it. Who asks is known by client
// certificate or bearer token; whether they may, the API server says, of nodes/proxy, nodes/metrics, … of
// core.pinnace.dev (docs/adr/0034). It reads pods from the agent's cache and everything else from the runtime.
// internal/setup enters.
package nodeserver
