// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=secrets,shortName=psecret,categories=pinnace
// +kubebuilder:storageversion

// Secret holds confidential data for pods; upstream's v1 Secret.
type Secret struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// immutable when true forbids every change of the data.
	// +optional
	Immutable *bool `json:"immutable,omitempty"`
	// data holds bytes by key, base64 in JSON.
	// +optional
	Data map[string][]byte `json:"data,omitempty"`
	// stringData is write-only: plain values that are laid over data.
	// +optional
	StringData map[string]string `json:"stringData,omitempty"`
	// type says what kind of secret this is; Opaque when empty.
	// +optional
	Type corev1.SecretType `json:"type,omitempty"`
}

// +kubebuilder:object:root=true

// SecretList is a list of Secret.
type SecretList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Secret `json:"items"`
}
