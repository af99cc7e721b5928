// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=statefulsets,shortName=psts,categories=pinnace;all
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector

// StatefulSet keeps pods with a lasting identity; upstream's apps/v1 StatefulSet.
type StatefulSet struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec StatefulSetSpec `json:"spec,omitempty"`
	// status is what was last observed.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status StatefulSetStatus `json:"status,omitempty"`
}

// StatefulSetSpec is upstream's, over Pinnace's pod template.
type StatefulSetSpec struct {
	// replicas is the wanted number of pods; 1 when absent.
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`
	// selector picks the pods by their labels; it can't be changed.
	Selector *metav1.LabelSelector `json:"selector"`
	// template is the pods that are made; its labels must match the selector.
	Template pcorev1.PodTemplateSpec `json:"template"`
	// volumeClaimTemplates are the claims that each pod gets for its own.
	// +optional
	VolumeClaimTemplates []corev1.PersistentVolumeClaim `json:"volumeClaimTemplates,omitempty"`
	// serviceName names the headless service that governs the pods' names.
	// +optional
	ServiceName string `json:"serviceName,omitempty"`
	// podManagementPolicy is OrderedReady (the default) or Parallel.
	// +optional
	PodManagementPolicy appsv1.PodManagementPolicyType `json:"podManagementPolicy,omitempty"`
	// updateStrategy says how pods are replaced when the template changes.
	// +optional
	UpdateStrategy appsv1.StatefulSetUpdateStrategy `json:"updateStrategy,omitempty"`
	// revisionHistoryLimit is how many old revisions are kept; 10 when absent.
	// +optional
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
	// minReadySeconds is for how many seconds a pod must be ready before it counts as available.
	// +optional
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`
	// persistentVolumeClaimRetentionPolicy says what becomes of claims when the set is deleted or scaled down.
	// +optional
	PersistentVolumeClaimRetentionPolicy *appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy `json:"persistentVolumeClaimRetentionPolicy,omitempty"`
	// ordinals says where the pods' numbers start.
	// +optional
	Ordinals *appsv1.StatefulSetOrdinals `json:"ordinals,omitempty"`
	// progressDeadlineSeconds is an extension: after how many seconds without progress a rollout counts as failed; 600 when absent. It
	// matters with onFailure alone.
	// +optional
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`

	RolloutSpec `json:",inline"`
}

// StatefulSetStatus is what was last observed. Only its controllers write it.
type StatefulSetStatus struct {
	appsv1.StatefulSetStatus `json:",inline"`

	RolloutStatus `json:",inline"`

	// selector is the label selector in its string form, for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// claims is an extension: how far the claims of the pods follow volumeClaimTemplates, one entry a template.
	// +optional
	// +listType=map
	// +listMapKey=name
	Claims []ClaimTemplateStatus `json:"claims,omitempty"`
	// columns is an extension: what kubectl's columns show and a JSONPath can't compute.
	// +optional
	Columns pcorev1.Columns `json:"columns,omitempty"`
}

// ClaimTemplateStatus says how far the claims of one volume claim template are.
type ClaimTemplateStatus struct {
	// name is the template's.
	Name string `json:"name"`
	// requested is the template's size, in bytes with a unit.
	// +optional
	Requested string `json:"requested,omitempty"`
	// claims is the number of claims that the pods should have of this template.
	Claims int32 `json:"claims"`
	// grown is the number of claims that are there with at least the requested size as their capacity.
	Grown int32 `json:"grown"`
	// message says in one sentence what is missing; empty when nothing is.
	// +optional
	Message string `json:"message,omitempty"`
}

// +kubebuilder:object:root=true

// StatefulSetList is a list of StatefulSet.
type StatefulSetList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StatefulSet `json:"items"`
}
