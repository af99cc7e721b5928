// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
)

// Reasons of the conditions of a service, beside those of internal/endpoints.
const (
	// ReasonServing: the service has all it asked for.
	ReasonServing = "Serving"
	// ReasonExhausted: no address or node port is left.
	ReasonExhausted = "RangeExhausted"
	// ReasonFamily: the cluster has no range of an address family that the service requires.
	ReasonFamily = "AddressFamilyUnavailable"
	// ReasonLoadBalancerPending: nothing has given the service an external address yet.
	ReasonLoadBalancerPending = "LoadBalancerPending"
)

// scope is all that a plan needs to know.
type scope struct {
	service *pcorev1.Service
	// ranges are the service networks, the preferred family first.
	ranges []netip.Prefix
	// ipHolder returns another service that holds an address, and whether there is one.
	ipHolder func(netip.Addr) (types.NamespacedName, bool)
	// portHolder does the same for node ports.
	portHolder func(nodePort) (types.NamespacedName, bool)
}

// plan is what is to be written.
type plan struct {
	// spec is the whole spec; equal to the present one when there is nothing to write.
	spec    corev1.ServiceSpec
	verdict condition.Verdict
}

// makePlan fills in what the user left out. Once something is wrong that only the user can mend, nothing further is
// given out.
func makePlan(s *scope) plan {
	p := plan{spec: *s.service.Spec.DeepCopy(), verdict: condition.Verdict{State: condition.Done, Reason: ReasonServing, Message: "The service has its addresses and ports."}}
	if p.spec.Type == corev1.ServiceTypeExternalName {
		p.verdict.Message = "The service is a name for " + p.spec.ExternalName + "."
		return p
	}
	fillDefaults(&p.spec)
	for _, step := range []func(*scope, *corev1.ServiceSpec) *condition.Verdict{planFamilies, planAddresses, planNodePorts} {
		if problem := step(s, &p.spec); problem != nil {
			p.verdict = *problem
			return p
		}
	}
	if p.spec.Type == corev1.ServiceTypeLoadBalancer && len(s.service.Status.LoadBalancer.Ingress) == 0 {
		p.verdict = condition.Verdict{
			State: condition.InProgress, Reason: ReasonLoadBalancerPending,
			Message: "The service can be reached inside the cluster and by its node ports; nothing has given it an external address yet.",
		}
	}
	return p
}

// fillDefaults sets what upstream defaults depending on other fields, which no schema can.
func fillDefaults(spec *corev1.ServiceSpec) {
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.InternalTrafficPolicy == nil {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if exposed(spec) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		spec.AllocateLoadBalancerNodePorts = new(true)
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.TargetPort.IntVal == 0 && port.TargetPort.StrVal == "" {
			port.TargetPort.IntVal = port.Port
		}
	}
}

// exposed says whether the service is reached from outside through the nodes.
func exposed(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer
}

func familyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// planFamilies settles the service's address families, by the addresses, the families and the policy that the user chose,
// in this order.
func planFamilies(s *scope, spec *corev1.ServiceSpec) *condition.Verdict {
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	if len(spec.ClusterIPs) > 0 && spec.ClusterIP == "" {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	available := map[corev1.IPFamily]bool{}
	for _, r := range s.ranges {
		available[familyOf(r.Addr())] = true
	}
	if len(spec.IPFamilies) == 0 {
		for _, ip := range spec.ClusterIPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				spec.IPFamilies = append(spec.IPFamilies, familyOf(addr))
			}
		}
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{familyOf(s.ranges[0].Addr())}
	}
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if len(spec.IPFamilies) > 1 {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	for _, r := range s.ranges {
		family := familyOf(r.Addr())
		if *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && !slices.Contains(spec.IPFamilies, family) {
			spec.IPFamilies = append(spec.IPFamilies, family)
		}
	}
	for _, family := range spec.IPFamilies {
		if !available[family] {
			return failed(ReasonFamily, "The cluster has no service network of the family %s: remove it from spec.ipFamilies.", family)
		}
	}
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(spec.IPFamilies) < 2 {
		return failed(ReasonFamily, "The service requires two address families and the cluster has one: set spec.ipFamilyPolicy to PreferDualStack or SingleStack.")
	}
	return nil
}

// planAddresses gives out cluster addresses, and checks those that the user chose.
func planAddresses(s *scope, spec *corev1.ServiceSpec) *condition.Verdict {
	if spec.ClusterIP == corev1.ClusterIPNone {
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
		return nil
	}
	key := types.NamespacedName{Namespace: s.service.Namespace, Name: s.service.Name}
	for i, family := range spec.IPFamilies {
		prefix := s.rangeOf(family)
		if i < len(spec.ClusterIPs) {
			if problem := checkAddress(s, spec.ClusterIPs[i], prefix); problem != nil {
				return problem
			}
			continue
		}
		addr, ok := pickAddress(prefix, key, func(a netip.Addr) bool {
			_, taken := s.ipHolder(a)
			return taken
		})
		if !ok {
			return failed(ReasonExhausted, "No address is left in the service network %s: delete services that are no longer needed.", prefix)
		}
		spec.ClusterIPs = append(spec.ClusterIPs, addr.String())
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	return nil
}

func (s *scope) rangeOf(family corev1.IPFamily) netip.Prefix {
	for _, r := range s.ranges {
		if familyOf(r.Addr()) == family {
			return r
		}
	}
	return netip.Prefix{}
}

func checkAddress(s *scope, text string, prefix netip.Prefix) *condition.Verdict {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return failed(endpoints.ReasonInvalidIP, "spec.clusterIP %q is no address: give one of %s, or None, or leave it out.", text, prefix)
	}
	if !prefix.Contains(addr) {
		return failed(endpoints.ReasonInvalidIP, "spec.clusterIP %s is not in the service network %s: choose one of it, or leave it out.", addr, prefix)
	}
	if holder, taken := s.ipHolder(addr); taken {
		return failed(endpoints.ReasonIPConflict, "spec.clusterIP %s belongs to the service %s: delete this service and create it with another address, or with none.", addr, holder)
	}
	return nil
}

// planNodePorts gives out node ports, and checks those that the user chose.
func planNodePorts(s *scope, spec *corev1.ServiceSpec) *condition.Verdict {
	wanted := exposed(spec) && (spec.AllocateLoadBalancerNodePorts == nil || *spec.AllocateLoadBalancerNodePorts)
	key := types.NamespacedName{Namespace: s.service.Namespace, Name: s.service.Name}
	own := map[nodePort]bool{}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.NodePort == 0 {
			continue
		}
		chosen := nodePort{protocolOf(port.Protocol), port.NodePort}
		if holder, taken := s.portHolder(chosen); taken && exposed(spec) {
			return failed(endpoints.ReasonPortConflict, "The node port %d/%s of port %d belongs to the service %s: choose another, or leave it out.", chosen.port, chosen.protocol, port.Port, holder)
		}
		own[chosen] = true
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if !wanted || port.NodePort != 0 {
			continue
		}
		number, ok := pickNodePort(key, protocolOf(port.Protocol), port.Port, func(p nodePort) bool {
			_, taken := s.portHolder(p)
			return taken || own[p]
		})
		if !ok {
			return failed(ReasonExhausted, "No node port is left between %d and %d.", firstNodePort, lastNodePort)
		}
		port.NodePort = number
		own[nodePort{protocolOf(port.Protocol), number}] = true
	}
	return nil
}

func protocolOf(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

func failed(reason, format string, args ...any) *condition.Verdict {
	return &condition.Verdict{State: condition.Failed, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
