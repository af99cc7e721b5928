// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

// Columns holds what kubectl's columns show where a JSONPath can't compute it, by the column's name in
// camel case: ready "1/1", status "CrashLoopBackOff". It is written together with the status and never read back.
type Columns map[string]string

// The kstatus conditions, which stand in every kind's list of conditions so that Argo CD, Flux and kubectl wait
// need no special case. Ready=False means in progress; only Stalled=True means failed. Reconciling and Stalled
// are never true at the same time.
const (
	// ConditionReady is true when what the spec asks for is what is there.
	ConditionReady = "Ready"
	// ConditionReconciling is true while a controller works towards the spec.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is true when no further progress is to be expected without a change by the user.
	ConditionStalled = "Stalled"
)
