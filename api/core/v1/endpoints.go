// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=endpoints,shortName=pep,categories=pinnace
// +kubebuilder:storageversion

// Endpoints is a hand-made list of a service's addresses, mirrored into EndpointSlices; upstream's v1 Endpoints.
type Endpoints struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// subsets are the addresses and ports.
	// +optional
	Subsets []corev1.EndpointSubset `json:"subsets,omitempty"` //nolint:staticcheck // Deprecated upstream, and mirrored here as there.
}

// +kubebuilder:object:root=true

// EndpointsList is a list of Endpoints.
type EndpointsList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Endpoints `json:"items"`
}
