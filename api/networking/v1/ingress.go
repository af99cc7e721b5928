// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=ingresses,shortName=ping,categories=pinnace
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// Ingress routes HTTP from outside to services; upstream's networking.k8s.io/v1 Ingress.
type Ingress struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec networkingv1.IngressSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status IngressStatus `json:"status,omitempty"`
}

// IngressStatus is what was last observed. Only its controllers write it.
type IngressStatus struct {
	networkingv1.IngressStatus `json:",inline"`

	// observedGeneration is the metadata.generation that this status describes; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions holds the kstatus conditions Ready, Reconciling and Stalled, and those of upstream.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// IngressList is a list of Ingress.
type IngressList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Ingress `json:"items"`
}
