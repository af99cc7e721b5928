// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=nodes,shortName=pno,categories=pinnace,scope=Cluster
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// Node is a machine that a Pinnace agent runs; upstream's v1 Node.
type Node struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec corev1.NodeSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status NodeStatus `json:"status,omitempty"`
}

// NodeStatus is what was last observed. Only its controllers write it.
type NodeStatus struct {
	corev1.NodeStatus `json:",inline"`

	// observedGeneration is the metadata.generation that this status describes; -1 before the first look.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// NodeList is a list of Node.
type NodeList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Node `json:"items"`
}
