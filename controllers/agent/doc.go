// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent runs the pods of one node, or of many simulated nodes, on a container runtime, and is the only writer
// of their status once they are bound.
//
//	pod (cache) ─┐                      ┌─ sandboxes, containers (runtime port)
//	runtime ─────┼─ gather ─ makePlan ─ apply ─┘
//	memory ──────┘              └──── makeStatus ─ report: one PUT of status, only when it changed
//
// gather finds sandboxes and containers by the pod's UID label, so that a restart of the agent adopts what runs and never
// starts anything twice. makePlan (plan*.go) and makeStatus (status*.go) are pure. apply runs short steps in the reconcile and
// long ones (pulls, stops with grace, hooks) as jobs, whose end puts the pod back into the queue: no goroutine
// waits for a pod that is at rest. What the runtime can't remember (back-offs, probe results, running jobs) is in record.
//
// internal/setup enters. The Node object has its own room, controllers/agent/node.
package agent
