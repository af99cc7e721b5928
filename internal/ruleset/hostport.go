// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// HasHostPorts says whether a pod wants ports of its node. With the host's network it has them anyway.
func HasHostPorts(pod *pcorev1.Pod) bool {
	if pod.Spec.HostNetwork {
		return false
	}
	for i := range pod.Spec.Containers {
		for _, port := range pod.Spec.Containers[i].Ports {
			if port.HostPort != 0 {
				return true
			}
		}
	}
	return false
}

// HostPorts computes the fragment of one pod of this node: the ports of the node that lead to it.
func (c Config) HostPorts(pod *pcorev1.Pod) Fragment {
	var f Fragment
	if !HasHostPorts(pod) || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return f
	}
	address, ok := c.podIP(pod)
	if !ok {
		return f
	}
	for i := range pod.Spec.Containers {
		for _, port := range pod.Spec.Containers[i].Ports {
			if port.HostPort != 0 {
				c.hostPort(&f, pod, address, port)
			}
		}
	}
	if len(f.Chains) > 0 {
		f.Elements = append(f.Elements, Element{Set: Hairpin, Key: []string{address.String(), address.String()}})
	}
	return f
}

func (c Config) podIP(pod *pcorev1.Pod) (netip.Addr, bool) {
	ips := pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	for _, ip := range ips {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && c.is(addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func (c Config) hostPort(f *Fragment, pod *pcorev1.Pod, address netip.Addr, port corev1.ContainerPort) {
	protocol := strings.ToLower(string(protocolOf(port.Protocol)))
	match := "meta l4proto " + protocol
	if hostIP, err := netip.ParseAddr(port.HostIP); err == nil && !hostIP.IsUnspecified() {
		if !c.is(hostIP) {
			return
		}
		match = fmt.Sprintf("%s daddr %s %s", c.addr(), hostIP, match)
	}
	number := strconv.Itoa(int(port.HostPort))
	name := hashed("host", pod.Namespace, pod.Name, protocol, number, port.HostIP)
	comment := fmt.Sprintf("%s/%s %s/%s", pod.Namespace, pod.Name, number, protocol)
	f.Chains = append(f.Chains, Chain{
		Name: name, Comment: comment[:min(len(comment), 128)],
		Rules: []string{fmt.Sprintf("%s dnat to %s", match, netip.AddrPortFrom(address, uint16(port.ContainerPort)))},
	})
	f.Elements = append(f.Elements, Element{Set: HostPorts, Key: []string{protocol, number}, Value: "goto " + name})
}
