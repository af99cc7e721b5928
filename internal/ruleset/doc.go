// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ruleset decides which nftables objects a node needs for its services and its pods' host ports. It is pure:
// services, slices and pods in, chains and elements out. internal/dataplane brings them into the kernel,
// controllers/network/dataplane gathers the input; both enter.
//
// How a packet goes, in the table `ip pinnace` (and `ip6 pinnace` the same):
//
//	prerouting, output (nat)    destination . protocol . port  → verdict map "services"     → chain of the service's port
//	                            protocol . port, to this node  → verdict map "nodeports"    → chain of the node port
//	                            protocol . port, to this node  → verdict map "hostports"    → chain of the host port
//	chain of a service's port   mark what comes from outside the pods' network; DNAT to one of the endpoints
//	forward, output (filter)    what is still addressed to a cluster address has no endpoint: reject
//	postrouting (nat)           marked, or a pod that was sent to itself: masquerade
//	                            from a pod of this node to outside the pods' network: masquerade
//
// A service's port is one chain with one DNAT rule, which holds all its endpoints as a map: a change of endpoints rewrites
// that rule alone, and 5,000 services are 5,000 short chains.
package ruleset
