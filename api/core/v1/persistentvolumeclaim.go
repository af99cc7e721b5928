// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=persistentvolumeclaims,shortName=ppvc,categories=pinnace
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// PersistentVolumeClaim asks for storage; upstream's v1 PersistentVolumeClaim.
type PersistentVolumeClaim struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec corev1.PersistentVolumeClaimSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status PersistentVolumeClaimStatus `json:"status,omitempty"`
}

// PersistentVolumeClaimStatus is what was last observed. Only its controllers write it.
type PersistentVolumeClaimStatus struct {
	corev1.PersistentVolumeClaimStatus `json:",inline"`

	// observedGeneration is the metadata.generation that this status describes; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// PersistentVolumeClaimList is a list of PersistentVolumeClaim.
type PersistentVolumeClaimList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PersistentVolumeClaim `json:"items"`
}
