// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=deployments,shortName=pdeploy,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector

// Deployment rolls pods out and keeps a number of them running; upstream's apps/v1 Deployment.
type Deployment struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec DeploymentSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status DeploymentStatus `json:"status,omitempty"`
}

// DeploymentSpec is upstream's, over Pinnace's pod template.
type DeploymentSpec struct {
	// replicas is the wanted number of pods; 1 when absent.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// selector picks the pods by their labels; it can't be changed.
	Selector *metav1.LabelSelector `json:"selector"`
	// template is the pods that are made; its labels must match the selector.
	Template pcorev1.PodTemplateSpec `json:"template"`
	// strategy says how old pods are replaced by new ones.
	// +optional
	Strategy appsv1.DeploymentStrategy `json:"strategy,omitempty"`
	// minReadySeconds is for how many seconds a pod must be ready before it counts as available.
	// +optional
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`
	// revisionHistoryLimit is how many old revisions are kept; 10 when absent.
	// +optional
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
	// paused when true stops rollouts.
	// +optional
	Paused bool `json:"paused,omitempty"`
	// progressDeadlineSeconds is after how many seconds without progress a rollout counts as failed; 600 when absent.
	// +optional
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`

	RolloutSpec `json:",inline"`
}

// DeploymentStatus is what was last observed. Only its controllers write it.
type DeploymentStatus struct {
	appsv1.DeploymentStatus `json:",inline"`

	RolloutStatus `json:",inline"`

	// selector is the label selector in its string form, for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// DeploymentList is a list of Deployment.
type DeploymentList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Deployment `json:"items"`
}
