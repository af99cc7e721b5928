// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers is the controller oracle: upstream's controllers judge ours.
//
// A scenario is one script in upstream's vocabulary: apply a manifest, wait for a condition, scale, change the image, let a
// pod fail, pause, roll back, cordon a node. It runs once on native kinds, under kube-controller-manager and
// kube-scheduler, and once on Pinnace's, under our manager, at the same time and in the same namespace of one API server. The
// script says what it wants in upstream's kinds; the suffix rule makes ours of them.
//
// Both sides' nodes are played by one stand-in (kubelet_test.go), which looks at the image's name to decide whether a pod
// starts, fails or waits for the script: so the outcomes are the same on both sides, and only the controllers differ.
//
// When both scripts are through and nothing changes any more, the states of both namespaces are compared
// (snapshot_test.go): statuses, conditions, pods, revisions, claims. What is made anew for each object (names of pods,
// hashes, UIDs, times) is replaced by the role that it plays. Along the way, watches hold both sides to the script's
// invariants: never below the availability bound, no index twice, ordinals in order.
//
// A difference fails the test unless differences.yaml lists it with its reason; a listed one that no longer occurs fails it
// too. docs/parity.md carries the list for readers, and a test keeps the two equal:
//
//	go test ./test/conformance/controllers -run TestParity -update
//
// One scenario alone, with both states shown:
//
//	go test ./test/conformance/controllers -run 'TestControllerOracle/deployment/scale_up' -v -show
//
// Who may enter: nobody imports this room.
package controllers
