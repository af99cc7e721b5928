// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dataplane brings what internal/ruleset decided into the kernel, through knftables and the nft program. It holds
// what is in the kernel in memory, so that an update is the difference alone, in one transaction; after an error, and
// when somebody else has touched the table, it writes everything anew, again in one transaction, without a gap for traffic.
// It works in the network namespace of the process. controllers/network/dataplane enters.
package dataplane
