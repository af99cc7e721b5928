// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=daemonsets,shortName=pds,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status

// DaemonSet runs a pod on every matching node; upstream's apps/v1 DaemonSet.
type DaemonSet struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec DaemonSetSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status DaemonSetStatus `json:"status,omitempty"`
}

// DaemonSetSpec is upstream's, over Pinnace's pod template.
type DaemonSetSpec struct {
	// selector picks the pods by their labels; it can't be changed.
	Selector *metav1.LabelSelector `json:"selector"`
	// template is the pods that are made; its labels must match the selector.
	Template pcorev1.PodTemplateSpec `json:"template"`
	// updateStrategy says how pods are replaced when the template changes.
	// +optional
	UpdateStrategy appsv1.DaemonSetUpdateStrategy `json:"updateStrategy,omitempty"`
	// minReadySeconds is for how many seconds a pod must be ready before it counts as available.
	// +optional
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`
	// revisionHistoryLimit is how many old revisions are kept; 10 when absent.
	// +optional
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
	// progressDeadlineSeconds is an extension: after how many seconds without progress a rollout counts as failed; 600 when absent. It
	// matters with onFailure alone.
	// +optional
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`

	RolloutSpec `json:",inline"`
}

// DaemonSetStatus is what was last observed. Only its controllers write it.
type DaemonSetStatus struct {
	appsv1.DaemonSetStatus `json:",inline"`

	RolloutStatus `json:",inline"`

	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// +kubebuilder:object:root=true

// DaemonSetList is a list of DaemonSet.
type DaemonSetList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DaemonSet `json:"items"`
}
