// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=services,shortName=psvc,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// Service is a stable address in front of pods; upstream's v1 Service.
type Service struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec corev1.ServiceSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status ServiceStatus `json:"status,omitempty"`
}

// ServiceStatus is what was last observed. Only its controllers write it.
type ServiceStatus struct {
	corev1.ServiceStatus `json:",inline"`

	// observedGeneration is the metadata.generation that this status describes; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// ServiceList is a list of Service.
type ServiceList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Service `json:"items"`
}
