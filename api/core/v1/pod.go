// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:selectablefield:JSONPath=`.spec.nodeName`
// +kubebuilder:resource:path=pods,shortName=ppo,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// Pod is a group of containers that run together on one node; upstream's v1 Pod.
type Pod struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec PodSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status PodStatus `json:"status,omitempty"`
}

// PodSpec is upstream's PodSpec; Pinnace's extensions stand beside its fields.
type PodSpec struct {
	corev1.PodSpec `json:",inline"`

	// maxRestarts is an extension: when a container would be restarted more often than this, the pod fails with the reason
	// TooManyRestarts instead of trying for ever. Restarts are counted for each container by itself.
	// +optional
	MaxRestarts *int32 `json:"maxRestarts,omitempty"`
}

// PodTemplateSpec is upstream's PodTemplateSpec over Pinnace's PodSpec.
type PodTemplateSpec struct {
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the wanted behaviour of the pods.
	// +optional
	Spec PodSpec `json:"spec,omitempty"`
}

// PodStatus is what was last observed. Only its controllers write it.
type PodStatus struct {
	corev1.PodStatus `json:",inline"`

	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns Columns `json:"columns,omitempty"`

	// deaths is an extension: how the containers ended last, the newest first, at most three of each container. They stay
	// when the containers are gone from the node.
	// +optional
	// +listType=atomic
	Deaths []ContainerDeath `json:"deaths,omitempty"`
}

// +kubebuilder:object:root=true

// PodList is a list of Pod.
type PodList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Pod `json:"items"`
}
