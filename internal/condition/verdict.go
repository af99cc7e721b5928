// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package condition

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// State is how far an object is on its way to what its spec asks for, as kstatus sees it.
type State int

const (
	// InProgress means that a controller works towards the spec.
	InProgress State = iota
	// Done means that what the spec asks for is what is there.
	Done
	// Waiting means that the spec isn't reached and nobody works on it because the user asked for that (a pause).
	Waiting
	// Failed means that no progress is to be expected without a change by the user.
	Failed
)

// Verdict is the kstatus view of an object: its state, and why in one sentence.
type Verdict struct {
	State   State
	Reason  string
	Message string
}

// SetVerdict writes the verdict as the conditions Ready, Reconciling and Stalled. Reconciling and Stalled stand in the
// list only while they are true, so that they can never both be.
func (k Codec[C]) SetVerdict(list []C, v Verdict, now time.Time) []C {
	ready := Condition{Type: pcorev1.ConditionReady, Status: corev1.ConditionFalse, Reason: v.Reason, Message: v.Message}
	if v.State == Done {
		ready.Status = corev1.ConditionTrue
	}
	list = k.Set(list, ready, now)
	mark := Condition{Status: corev1.ConditionTrue, Reason: v.Reason, Message: v.Message}
	switch v.State {
	case InProgress:
		mark.Type = pcorev1.ConditionReconciling
		list = k.Remove(list, pcorev1.ConditionStalled)
	case Failed:
		mark.Type = pcorev1.ConditionStalled
		list = k.Remove(list, pcorev1.ConditionReconciling)
	case Done, Waiting:
		return k.Remove(list, pcorev1.ConditionReconciling, pcorev1.ConditionStalled)
	}
	return k.Set(list, mark, now)
}
