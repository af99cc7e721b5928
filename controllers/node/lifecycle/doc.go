// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lifecycle notices when a node's agent is gone. An agent renews its Lease; when that stops for a stated time, the node's
// conditions become Unknown, and taints keep pods away, or let them be moved. It writes a node's status only while the
// agent doesn't, and owns the taints that follow from conditions. Only internal/setup enters.
//
// The time of a renewal is when it was seen here, not the time written in the Lease: clocks differ between machines, and a
// controller that has just started must not judge by times from before its own life.
package lifecycle
