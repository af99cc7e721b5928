// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=limitranges,shortName=plimits,categories=pinnace
// +kubebuilder:storageversion

// LimitRange bounds the resources of each pod, container or claim of a namespace; upstream's v1 LimitRange.
type LimitRange struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec corev1.LimitRangeSpec `json:"spec,omitempty"`
}

// +kubebuilder:object:root=true

// LimitRangeList is a list of LimitRange.
type LimitRangeList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LimitRange `json:"items"`
}
