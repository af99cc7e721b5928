// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ipam gives every node its part of the pods' address range. It is the only writer of a node's spec.podCIDR and
// spec.podCIDRs, and runs with one worker in the leader alone, so that no two nodes get the same part. Only
// internal/setup enters.
package ipam
