// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=replicasets,shortName=prs,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector

// ReplicaSet keeps a number of equal pods running; upstream's apps/v1 ReplicaSet.
type ReplicaSet struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec ReplicaSetSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status ReplicaSetStatus `json:"status,omitempty"`
}

// ReplicaSetSpec is upstream's, over Pinnace's pod template.
type ReplicaSetSpec struct {
	// replicas is the wanted number of pods; 1 when absent.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// minReadySeconds is for how many seconds a pod must be ready before it counts as available.
	// +optional
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`
	// selector picks the pods by their labels; it can't be changed.
	Selector *metav1.LabelSelector `json:"selector"`
	// template is the pods that are made; its labels must match the selector.
	// +optional
	Template pcorev1.PodTemplateSpec `json:"template,omitempty"`
}

// ReplicaSetStatus is what was last observed. Only its controllers write it.
type ReplicaSetStatus struct {
	appsv1.ReplicaSetStatus `json:",inline"`

	// selector is the label selector in its string form, for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// ReplicaSetList is a list of ReplicaSet.
type ReplicaSetList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ReplicaSet `json:"items"`
}
