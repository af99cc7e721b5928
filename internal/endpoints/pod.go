// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// AddressTypes are the families in which a service's endpoints are listed. A service whose families nobody has filled
// in yet counts as IPv4, unless its address says otherwise.
func AddressTypes(service *pcorev1.Service) []discoveryv1.AddressType {
	var types []discoveryv1.AddressType
	for _, family := range service.Spec.IPFamilies {
		switch family {
		case corev1.IPv4Protocol:
			types = append(types, discoveryv1.AddressTypeIPv4)
		case corev1.IPv6Protocol:
			types = append(types, discoveryv1.AddressTypeIPv6)
		}
	}
	if len(types) > 0 {
		return types
	}
	if addr, err := netip.ParseAddr(service.Spec.ClusterIP); err == nil && addr.Is6() {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv6}
	}
	return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
}

// Belongs says whether a pod that the selector matches is listed: it has an address and its containers are not done.
// Pods that are being deleted stay, as terminating, until they are gone.
func Belongs(pod *pcorev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	return pod.Status.PodIP != "" || len(pod.Status.PodIPs) > 0
}

// Ready says whether the pod's condition Ready is true.
func Ready(pod *pcorev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			return pod.Status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// OnItsWay says whether a pod that the selector matches may become ready soon: it isn't yet, and it is neither done nor going.
func OnItsWay(pod *pcorev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed && !Ready(pod)
}

// FindPort resolves a service's target port in a pod: a number is itself, a name is looked up in the containers and the
// sidecars. Without a target port the service's own port counts, which upstream fills in as a default.
func FindPort(pod *pcorev1.Pod, port corev1.ServicePort) (int32, bool) {
	if port.TargetPort.Type == intstr.Int || port.TargetPort.StrVal == "" {
		if port.TargetPort.IntVal == 0 {
			return port.Port, true
		}
		return port.TargetPort.IntVal, true
	}
	find := func(container corev1.Container) (int32, bool) {
		for _, p := range container.Ports {
			if p.Name == port.TargetPort.StrVal && protocolOf(p.Protocol) == protocolOf(port.Protocol) {
				return p.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range pod.Spec.Containers {
		if number, ok := find(pod.Spec.Containers[i]); ok {
			return number, true
		}
	}
	for i := range pod.Spec.InitContainers {
		policy := pod.Spec.InitContainers[i].RestartPolicy
		if policy == nil || *policy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if number, ok := find(pod.Spec.InitContainers[i]); ok {
			return number, true
		}
	}
	return 0, false
}

func protocolOf(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// portsOf are the ports of a slice in which the pod is listed.
func portsOf(service *pcorev1.Service, pod *pcorev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for _, p := range service.Spec.Ports {
		number, ok := FindPort(pod, p)
		if !ok {
			continue
		}
		protocol := protocolOf(p.Protocol)
		ports = append(ports, discoveryv1.EndpointPort{Name: new(p.Name), Port: &number, Protocol: &protocol, AppProtocol: p.AppProtocol})
	}
	return ports
}

// endpointOf lists a pod. An endpoint without addresses of the family is none.
func endpointOf(service *pcorev1.Service, pod *pcorev1.Pod, family discoveryv1.AddressType, zones map[string]string) (discoveryv1.Endpoint, bool) {
	serving, terminating := Ready(pod), pod.DeletionTimestamp != nil
	ready := service.Spec.PublishNotReadyAddresses || (serving && !terminating)
	endpoint := discoveryv1.Endpoint{
		Addresses:  addressesOf(pod, family),
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		endpoint.NodeName = new(pod.Spec.NodeName)
		if zone := zones[pod.Spec.NodeName]; zone != "" {
			endpoint.Zone = &zone
		}
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == service.Name && pod.Namespace == service.Namespace {
		endpoint.Hostname = new(pod.Spec.Hostname)
	}
	return endpoint, len(endpoint.Addresses) > 0
}

func addressesOf(pod *pcorev1.Pod, family discoveryv1.AddressType) []string {
	ips := pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	var addresses []string
	for _, ip := range ips {
		addr, err := netip.ParseAddr(ip.IP)
		if err == nil && familyOf(addr) == family {
			addresses = append(addresses, addr.String())
		}
	}
	return addresses
}

func familyOf(addr netip.Addr) discoveryv1.AddressType {
	if addr.Is6() {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}
