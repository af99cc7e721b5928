// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package podnetwork is a node's network below services: the CNI configuration by which pods get their addresses, the
// kernel switches that it needs, the routes to the pods of other nodes, and, where several nodes share one machine,
// each node's own network namespace.
//
// Addresses come from the node's spec.podCIDRs. Nodes that share a segment reach each other's pods by plain routes, so
// that source addresses stay as they are. Address translation is not done here but by internal/dataplane, except for
// what leaves the machine from the namespaces of `pinnace up --nodes N`.
//
// controllers/network/routes, the agent's start-up and cmd/pinnace enter.
package podnetwork
