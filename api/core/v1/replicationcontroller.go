// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=replicationcontrollers,shortName=prc,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector

// ReplicationController keeps a number of pods running; upstream's v1 ReplicationController.
type ReplicationController struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec ReplicationControllerSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status ReplicationControllerStatus `json:"status,omitempty"`
}

// ReplicationControllerSpec is upstream's, over Pinnace's pod template.
type ReplicationControllerSpec struct {
	// replicas is the wanted number of pods; 1 when absent.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// minReadySeconds is for how many seconds a pod must be ready before it counts as available.
	// +optional
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`
	// selector picks the pods by their labels; the template's labels when absent.
	// +optional
	Selector map[string]string `json:"selector,omitempty"`
	// template is the pods that are made; its labels must match the selector.
	// +optional
	Template *PodTemplateSpec `json:"template,omitempty"`
}

// ReplicationControllerStatus is what was last observed. Only its controllers write it.
type ReplicationControllerStatus struct {
	corev1.ReplicationControllerStatus `json:",inline"`

	// selector is the label selector in its string form, for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// ReplicationControllerList is a list of ReplicationController.
type ReplicationControllerList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ReplicationController `json:"items"`
}
