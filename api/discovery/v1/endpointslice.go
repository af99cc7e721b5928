// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=endpointslices,shortName=peps,categories=pinnace
// +kubebuilder:storageversion

// EndpointSlice is a part of a service's endpoints; upstream's discovery.k8s.io/v1 EndpointSlice.
type EndpointSlice struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// addressType is IPv4, IPv6 or FQDN; it can't be changed.
	AddressType discoveryv1.AddressType `json:"addressType"`
	// endpoints are the endpoints, at most 1000.
	Endpoints []discoveryv1.Endpoint `json:"endpoints"`
	// ports are the ports that each endpoint serves, at most 100.
	// +optional
	Ports []discoveryv1.EndpointPort `json:"ports,omitempty"`
}

// +kubebuilder:object:root=true

// EndpointSliceList is a list of EndpointSlice.
type EndpointSliceList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EndpointSlice `json:"items"`
}
