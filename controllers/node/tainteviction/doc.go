// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tainteviction moves pods off nodes that have a taint with the effect NoExecute, once the time is over for which they
// tolerate it; upstream's taint-eviction-controller. Pods of a node that can't be reached are told not to be ready. Only internal/setup
// enters.
//
// The time for which a pod tolerates a taint counts from when it was seen here: a controller that has just started must not judge by times
// from before its own life.
package tainteviction
