// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package job runs the pods of Jobs to completion. It is the only writer of a Job's status, the only maker of its pods, and the only one
// who takes the finalizer batch.kubernetes.io/job-tracking from them.
//
// A pod's end is counted in three writes, so that none is lost or counted twice wherever the controller dies:
//
//	pod ends ── its UID (or index, or node) into the status ── finalizer off ── UID out of the status, counter up
//
// Until the first write the finalizer holds the pod; from there to the last the status knows it by name. An index or a node that is
// done needs no UID: the list of the ones that are done can't count one twice.
//
// One look gathers the Job and its pods, decides (plan.go), makes and deletes pods, then counts (plan_account.go) and writes the
// status. A second, small controller of the package takes the finalizer from pods whose Job is gone (orphans.go). Only
// internal/setup enters.
package job
