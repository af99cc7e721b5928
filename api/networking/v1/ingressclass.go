// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=ingressclasses,shortName=pingclass,categories=pinnace,scope=Cluster
// +kubebuilder:storageversion

// IngressClass names what serves an Ingress; upstream's networking.k8s.io/v1 IngressClass.
type IngressClass struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	Spec networkingv1.IngressClassSpec `json:"spec,omitempty"`
}

// +kubebuilder:object:root=true

// IngressClassList is a list of IngressClass.
type IngressClassList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IngressClass `json:"items"`
}
