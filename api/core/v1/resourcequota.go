// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=resourcequotas,shortName=pquota,categories=pinnace
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// ResourceQuota bounds the sum of a namespace's resources; upstream's v1 ResourceQuota.
type ResourceQuota struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec corev1.ResourceQuotaSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status ResourceQuotaStatus `json:"status,omitempty"`
}

// ResourceQuotaStatus is what was last observed. Only its controllers write it.
type ResourceQuotaStatus struct {
	corev1.ResourceQuotaStatus `json:",inline"`

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
	Columns Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// ResourceQuotaList is a list of ResourceQuota.
type ResourceQuotaList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ResourceQuota `json:"items"`
}
