// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package podstate derives what a pod's status says from what was observed: phase, conditions, QoS class, kubectl's
// columns, and whether a container that has ended is to be started again.
//
// Everything is a pure function over upstream's types, after the kubelet's pkg/kubelet/status and kubelet_pods.go.
// The node agent, placement and the workload controllers may enter; nothing here takes a context, a client or a clock.
package podstate
