// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
)

// Mirror lists the addresses of a hand-made Endpoints object behind a service without a selector; source is nil when
// there is none, or when it asks not to be mirrored. existing are the slices of the service that carry ManagedByMirror.
func Mirror(service *pcorev1.Service, source *pcorev1.Endpoints, existing []*pdiscoveryv1.EndpointSlice) Changes {
	wanted := map[discoveryv1.AddressType]*family{}
	if source != nil && source.Labels[discoveryv1.LabelSkipMirror] != "true" {
		for i := range source.Subsets {
			mirrorSubset(&source.Subsets[i], wanted)
		}
	}
	return plan(service, ManagedByMirror, wanted, existing)
}

func mirrorSubset(subset *corev1.EndpointSubset, //nolint:staticcheck // Deprecated upstream, and still what people make by hand.
	wanted map[discoveryv1.AddressType]*family,
) {
	ports := []discoveryv1.EndpointPort{}
	for _, p := range subset.Ports {
		protocol := protocolOf(p.Protocol)
		ports = append(ports, discoveryv1.EndpointPort{Name: new(p.Name), Port: new(p.Port), Protocol: &protocol, AppProtocol: p.AppProtocol})
	}
	add := func(addresses []corev1.EndpointAddress, ready bool) {
		for _, a := range addresses {
			addr, err := netip.ParseAddr(a.IP)
			if err != nil {
				continue // The schema refuses what is no address.
			}
			endpoint := discoveryv1.Endpoint{
				Addresses: []string{addr.String()}, NodeName: a.NodeName, TargetRef: a.TargetRef,
				Conditions: discoveryv1.EndpointConditions{Ready: new(ready)},
			}
			if a.Hostname != "" {
				endpoint.Hostname = new(a.Hostname)
			}
			f := wanted[familyOf(addr)]
			if f == nil {
				f = &family{groups: map[string]*group{}}
				wanted[familyOf(addr)] = f
			}
			f.add(ports, endpointKey(endpoint), endpoint)
		}
	}
	add(subset.NotReadyAddresses, false)
	add(subset.Addresses, true)
}
