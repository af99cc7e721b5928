// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
)

// Fragment is all that one service, or the host ports of one pod, need in the table. Equal input gives equal fragments.
type Fragment struct {
	Chains   []Chain
	Elements []Element
	// UDP lists the endpoints that are reached over UDP, whose connections the kernel remembers although they know no end.
	UDP []Flow
}

// Chain is a chain without a hook.
type Chain struct {
	Name, Comment string
	Rules         []string
}

// Element is an element of a set, or of a verdict map when Value is set.
type Element struct {
	Set   string
	Key   []string
	Value string
}

// Flow is a way that UDP packets go: from an address that is served to an endpoint.
type Flow struct {
	VIP, Endpoint netip.AddrPort
}

// Service computes the fragment of one service. slices are those of its EndpointSlices, of whatever family. A service without
// a cluster address has nothing in the table.
func (c Config) Service(service *pcorev1.Service, endpointSlices []*pdiscoveryv1.EndpointSlice) Fragment {
	var f Fragment
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return f
	}
	vip, ok := c.clusterIP(service)
	if !ok {
		return f
	}
	f.Elements = append(f.Elements, Element{Set: ClusterIPs, Key: []string{vip.String()}})
	hairpin := map[netip.Addr]bool{}
	for i := range service.Spec.Ports {
		p := &portPlan{config: c, service: service, port: &service.Spec.Ports[i], vip: vip, hairpin: hairpin}
		p.endpoints = c.endpoints(endpointSlices, p.port)
		p.run(&f)
	}
	for _, addr := range sortedAddrs(hairpin) {
		f.Elements = append(f.Elements, Element{Set: Hairpin, Key: []string{addr.String(), addr.String()}})
	}
	return f
}

// clusterIP is the service's address of the family.
func (c Config) clusterIP(service *pcorev1.Service) (netip.Addr, bool) {
	texts := service.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{service.Spec.ClusterIP}
	}
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil && c.is(addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func (c Config) is(addr netip.Addr) bool { return addr.Is6() == (c.Family == IPv6) }

// endpoint is one target of a service's port.
type endpoint struct {
	target netip.AddrPort
	local  bool
}

// endpoints are the targets of a service's port: those that are ready, or, when none is, those that still serve while
// they end, as upstream has it.
func (c Config) endpoints(endpointSlices []*pdiscoveryv1.EndpointSlice, port *corev1.ServicePort) []endpoint {
	var ready, ending []endpoint
	for _, slice := range endpointSlices {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		number, ok := portNumber(slice.Ports, port)
		if !ok {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			addr, err := netip.ParseAddr(e.Addresses[0]) // Upstream uses the first alone, too.
			if err != nil || !c.is(addr) {
				continue
			}
			target := endpoint{netip.AddrPortFrom(addr, number), e.NodeName != nil && *e.NodeName == c.NodeName}
			switch {
			case e.Conditions.Ready == nil || *e.Conditions.Ready:
				ready = append(ready, target)
			case isTrue(e.Conditions.Serving) && isTrue(e.Conditions.Terminating):
				ending = append(ending, target)
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.SortFunc(ready, func(a, b endpoint) int { return a.target.Compare(b.target) })
	return slices.CompactFunc(ready, func(a, b endpoint) bool { return a.target == b.target })
}

func isTrue(b *bool) bool { return b != nil && *b }

// portNumber finds the slice's port of the service's port: they share the name and the protocol.
func portNumber(ports []discoveryv1.EndpointPort, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range ports {
		name, protocol := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if name == port.Name && protocol == protocolOf(port.Protocol) && p.Port != nil {
			return uint16(*p.Port), true
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

// portPlan makes what one port of a service needs.
type portPlan struct {
	config    Config
	service   *pcorev1.Service
	port      *corev1.ServicePort
	vip       netip.Addr
	endpoints []endpoint
	hairpin   map[netip.Addr]bool
}

func (p *portPlan) run(f *Fragment) {
	for _, e := range p.endpoints {
		if e.local {
			p.hairpin[e.target.Addr()] = true
		}
	}
	protocol := strings.ToLower(string(protocolOf(p.port.Protocol)))
	number := strconv.Itoa(int(p.port.Port))
	inside := p.endpoints
	if policy := p.service.Spec.InternalTrafficPolicy; policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal {
		inside = localOf(inside)
	}
	var outsidePods []string
	if match := p.config.outside("saddr"); match != "" {
		outsidePods = []string{match + " jump " + markChain}
	}
	// Without endpoints there is no element: the packet keeps its address and is rejected.
	if len(inside) > 0 {
		name := p.chainName("svc")
		f.Chains = append(f.Chains, Chain{Name: name, Comment: p.comment(), Rules: append(outsidePods, p.dnat(inside))})
		addresses := append([]netip.Addr{p.vip}, p.externalIPs()...)
		for _, addr := range addresses {
			f.Elements = append(f.Elements, Element{Set: Services, Key: []string{addr.String(), protocol, number}, Value: "goto " + name})
			p.flows(f, netip.AddrPortFrom(addr, uint16(p.port.Port)), inside)
		}
	}
	p.nodePort(f, protocol)
}

// nodePort makes the way in through a port of this node.
func (p *portPlan) nodePort(f *Fragment, protocol string) {
	spec := &p.service.Spec
	if p.port.NodePort == 0 || (spec.Type != corev1.ServiceTypeNodePort && spec.Type != corev1.ServiceTypeLoadBalancer) {
		return
	}
	targets, rules := p.endpoints, []string{"jump " + markChain}
	if spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		// The source address is kept, which works since the endpoint is on this node.
		targets, rules = localOf(targets), nil
	}
	if len(targets) == 0 {
		return
	}
	name := p.chainName("ext")
	f.Chains = append(f.Chains, Chain{Name: name, Comment: p.comment(), Rules: append(rules, p.dnat(targets))})
	f.Elements = append(f.Elements, Element{Set: NodePorts, Key: []string{protocol, strconv.Itoa(int(p.port.NodePort))}, Value: "goto " + name})
}

// externalIPs are further addresses under which the service answers.
func (p *portPlan) externalIPs() []netip.Addr {
	texts := slices.Clone(p.service.Spec.ExternalIPs)
	for _, ingress := range p.service.Status.LoadBalancer.Ingress {
		if ingress.IP != "" && (ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP) {
			texts = append(texts, ingress.IP)
		}
	}
	var addrs []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil && p.config.is(addr) && addr != p.vip && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// flows remembers where UDP goes.
func (p *portPlan) flows(f *Fragment, vip netip.AddrPort, targets []endpoint) {
	if p.port.Protocol != corev1.ProtocolUDP {
		return
	}
	for _, e := range targets {
		f.UDP = append(f.UDP, Flow{VIP: vip, Endpoint: e.target})
	}
}

func localOf(endpoints []endpoint) []endpoint {
	var local []endpoint
	for _, e := range endpoints {
		if e.local {
			local = append(local, e)
		}
	}
	return local
}

// dnat sends each new connection to one of the targets: at random, or, with session affinity, always to the same one for
// one client as long as the targets are the same.
func (p *portPlan) dnat(targets []endpoint) string {
	protocol := "meta l4proto " + strings.ToLower(string(protocolOf(p.port.Protocol)))
	if len(targets) == 1 {
		return fmt.Sprintf("%s dnat to %s", protocol, targets[0].target)
	}
	choose := "numgen random"
	if p.service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		choose = "jhash " + p.config.addr() + " saddr"
	}
	seed := ""
	if strings.HasPrefix(choose, "jhash") {
		seed = " seed 0x1"
	}
	parts := make([]string, len(targets))
	for i, e := range targets {
		parts[i] = fmt.Sprintf("%d : %s . %d", i, e.target.Addr(), e.target.Port())
	}
	return fmt.Sprintf("%s dnat %s addr . port to %s mod %d%s map { %s }", protocol, p.config.addr(), choose, len(targets), seed, strings.Join(parts, ", "))
}

// chainName is short and the same for the same port of the same service.
func (p *portPlan) chainName(prefix string) string {
	return hashed(prefix, p.service.Namespace, p.service.Name, string(protocolOf(p.port.Protocol)), strconv.Itoa(int(p.port.Port)))
}

func (p *portPlan) comment() string {
	comment := fmt.Sprintf("%s/%s %d/%s", p.service.Namespace, p.service.Name, p.port.Port, protocolOf(p.port.Protocol))
	return comment[:min(len(comment), 128)] // nftables' limit
}

func hashed(prefix string, words ...string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join(words, "\x00")))
	return fmt.Sprintf("%s-%016x", prefix, h.Sum64())
}

func sortedAddrs(set map[netip.Addr]bool) []netip.Addr {
	var addrs []netip.Addr
	for addr := range set {
		addrs = append(addrs, addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}
