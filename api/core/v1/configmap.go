// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=configmaps,shortName=pcm,categories=pinnace
// +kubebuilder:storageversion

// ConfigMap holds configuration for pods; upstream's v1 ConfigMap.
type ConfigMap struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// immutable when true forbids every change of the data.
	// +optional
	Immutable *bool `json:"immutable,omitempty"`
	// data holds UTF-8 values by key.
	// +optional
	Data map[string]string `json:"data,omitempty"`
	// binaryData holds bytes by key, base64 in JSON; no key may stand in data too.
	// +optional
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
}

// +kubebuilder:object:root=true

// ConfigMapList is a list of ConfigMap.
type ConfigMapList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ConfigMap `json:"items"`
}
