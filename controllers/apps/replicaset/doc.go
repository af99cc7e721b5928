// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package replicaset keeps the wanted number of equal pods running for every ReplicaSet. It is the only writer of a
// ReplicaSet's status and the only maker of its pods. Their names depend on the ReplicaSet's UID and a slot number, so that a
// creation that is repeated after a crash meets the pod that is there already. Only internal/setup enters.
package replicaset
