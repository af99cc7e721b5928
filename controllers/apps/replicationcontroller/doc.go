// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package replicationcontroller keeps the wanted number of equal pods running for every ReplicationController, by the rules
// that ReplicaSets follow (internal/workload). It is the only writer of a ReplicationController's status and the only maker
// of its pods. Only internal/setup enters.
package replicationcontroller
