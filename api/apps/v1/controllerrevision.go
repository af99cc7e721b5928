// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=controllerrevisions,shortName=pcrev,categories=pinnace
// +kubebuilder:storageversion

// ControllerRevision is an unchanging snapshot of a workload's template; upstream's apps/v1 ControllerRevision.
type ControllerRevision struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// data is the snapshot.
	// +optional
	Data runtime.RawExtension `json:"data,omitempty"`
	// revision numbers the snapshots of one owner, rising.
	Revision int64 `json:"revision"`
}

// +kubebuilder:object:root=true

// ControllerRevisionList is a list of ControllerRevision.
type ControllerRevisionList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ControllerRevision `json:"items"`
}
