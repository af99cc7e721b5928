// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package workload tests the workload loops together on a real API server: Deployment, ReplicaSet, ReplicationController,
// placement and the node loops run in one manager, and a stand-in for the agents makes bound pods ready. It holds stories,
// faults and the counting of writes; the rules of each loop are tested beside it.
package workload
