// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package disruption holds what is decided about budgets for disruptions: which pods a budget counts, how many of them are to be
// healthy, how many may go, and whether a pod may be evicted now. The budgets' controller and whoever evicts (the eviction endpoint, a drain,
// a preemption) share it, so that both count alike. It is pure: pods, budgets and times come in, decisions go out. Every floor above api
// may enter.
//
// Two write a budget's status, one after the other over the resource version, as in upstream. Who evicts takes one disruption and notes the
// pod before it deletes it; the controller counts anew and forgets the note once the pod is going, or after two minutes:
//
//	evict: MayEvict ─► PUT status {disruptionsAllowed-1, disruptedPods+pod} ─► delete the pod
//	controller:        count ─► PUT status; a pod in disruptedPods counts as gone
package disruption
