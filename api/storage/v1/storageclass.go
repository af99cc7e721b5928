// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=storageclasses,shortName=psc,categories=pinnace,scope=Cluster
// +kubebuilder:storageversion

// StorageClass says how volumes are made; upstream's storage.k8s.io/v1 StorageClass.
type StorageClass struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// provisioner names what makes the volumes.
	Provisioner string `json:"provisioner"`
	// parameters are passed to the provisioner.
	// +optional
	Parameters map[string]string `json:"parameters,omitempty"`
	// reclaimPolicy is Delete (the default) or Retain.
	// +optional
	ReclaimPolicy *corev1.PersistentVolumeReclaimPolicy `json:"reclaimPolicy,omitempty"`
	// mountOptions are added when a volume is mounted.
	// +optional
	MountOptions []string `json:"mountOptions,omitempty"`
	// allowVolumeExpansion when true lets claims grow.
	// +optional
	AllowVolumeExpansion *bool `json:"allowVolumeExpansion,omitempty"`
	// volumeBindingMode is Immediate (the default) or WaitForFirstConsumer.
	// +optional
	VolumeBindingMode *storagev1.VolumeBindingMode `json:"volumeBindingMode,omitempty"`
	// allowedTopologies bounds where volumes may be made.
	// +optional
	AllowedTopologies []corev1.TopologySelectorTerm `json:"allowedTopologies,omitempty"`
}

// +kubebuilder:object:root=true

// StorageClassList is a list of StorageClass.
type StorageClassList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StorageClass `json:"items"`
}
