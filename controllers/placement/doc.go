// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package placement puts pods on nodes. It isn't a reconciler of one pod at a time but one loop over all that wait:
//
//	heads    take what waits, by priority and then by age
//	snapshot the cluster's columns, kept up to date by the watches (internal/placement)
//	choose   filter and score; assume the pod on its node
//	bind     one write per pod, by several writers beside the loop; a write that fails takes the assumption back
//	park     what fits nowhere says why in its condition, and waits until a node or a pod changes
//
// Most pods never come that far: who makes pods asks for a node before (Promise, Settle), and makes them there. The loop serves the
// others. docs/adr/0060 says when room is promised and when it is given back.
//
// It is the only writer of a pod's spec.nodeName, and of a pod's status as long as that is empty. The binding write also
// adds the finalizer that lets the node's agent end the pod in order, and drops the pod's managedFields. Only
// internal/setup enters.
package placement
