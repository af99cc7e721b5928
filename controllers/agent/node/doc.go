// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node keeps the Node objects and leases of the nodes that this process runs: it registers them, writes their
// status when it changed, and renews each lease, the only heartbeat. It serves one real node or many simulated ones.
//
// It writes status (but for what controllers/node/lifecycle says of a node that is silent) and the labels that describe
// the machine. spec is others': podCIDRs by controllers/node/ipam, of which OnPodCIDRs tells the node, taints and
// unschedulable by lifecycle and people. internal/setup enters.
package node
