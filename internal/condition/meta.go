// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package condition

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Meta is for the kinds whose conditions are apimachinery's. What a Codec doesn't know, the observed generation, is
// set by Observed.
var Meta = Codec[metav1.Condition]{
	From: func(c metav1.Condition) Condition {
		return Condition{Type: c.Type, Status: corev1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
	},
	To: func(c Condition) metav1.Condition {
		return metav1.Condition{Type: c.Type, Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message, LastTransitionTime: c.LastTransitionTime}
	},
}

// Observed returns the list with every condition saying that it describes that generation. The list given is not written to.
func Observed(list []metav1.Condition, generation int64) []metav1.Condition {
	out := make([]metav1.Condition, len(list))
	for i := range list {
		out[i] = list[i]
		out[i].ObservedGeneration = generation
	}
	return out
}
