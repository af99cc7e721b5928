// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"net/netip"
	"strings"
)

// Family is an address family.
type Family string

// The families, by their names in nftables.
const (
	IPv4 Family = "ip"
	IPv6 Family = "ip6"
)

// Names of the verdict maps and sets.
const (
	// Services maps an address, a protocol and a port to the chain of a service's port.
	Services = "services"
	// NodePorts maps a protocol and a port of this node to the chain of a node port.
	NodePorts = "nodeports"
	// HostPorts maps a protocol and a port of this node to the chain of a host port.
	HostPorts = "hostports"
	// ClusterIPs holds all addresses of services.
	ClusterIPs = "cluster-ips"
	// Hairpin holds pairs of equal addresses: a pod of this node that is sent to itself by a service.
	Hairpin = "hairpin"
)

// markBit marks packets whose source must be hidden. kube-proxy uses 0x4000 and CNI plugins the bits below 0x10000, so
// that both may be on the same machine.
const markBit = 0x200000

// Config is what is the same for all services of a node.
type Config struct {
	Family Family
	// NodeName is the node's own name, by which local endpoints are told.
	NodeName string
	// ClusterCIDRs are the networks of all pods of the family: what comes from there keeps its source address.
	ClusterCIDRs []netip.Prefix
	// PodCIDRs are those of this node's own pods: what they send to the outside gets the node's address.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs are the service networks of the family; what is sent there and is no service's is rejected.
	ServiceCIDRs []netip.Prefix
}

// addr is the keyword of the family's header.
func (c Config) addr() string { return string(c.Family) }

func (c Config) addrType() string {
	if c.Family == IPv6 {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}

// Set is a set, or with Verdicts a verdict map.
type Set struct {
	Name, Type string
	Verdicts   bool
}

// Base is a chain that is hooked into the kernel, or jumped to from one.
type Base struct {
	Name string
	// Type, Hook and Priority are nftables' own words; empty for a chain without a hook.
	Type, Hook, Priority string
	Rules                []string
}

// Static are the objects that are there whatever the services are, in the order in which they can be made.
type Static struct {
	Sets   []Set
	Chains []Base
}

// Static returns the skeleton of the table.
func (c Config) Static() Static {
	ip, addr := c.addr(), c.addrType()
	local := "fib daddr type local"
	if c.Family == IPv4 {
		local += " ip daddr != 127.0.0.0/8"
	} else {
		local += " ip6 daddr != ::1"
	}
	notPods := c.outside("daddr")
	postrouting := []string{
		fmt.Sprintf("meta mark & %#x == %#x meta mark set meta mark ^ %#x masquerade fully-random", markBit, markBit, markBit),
		fmt.Sprintf("ct status dnat %s saddr . %s daddr @%s masquerade fully-random", ip, ip, Hairpin),
	}
	for _, pods := range c.PodCIDRs {
		postrouting = append(postrouting, strings.Join(strings.Fields(fmt.Sprintf("%s saddr %s %s masquerade fully-random", ip, pods, notPods)), " "))
	}
	unserved := []string{"@" + ClusterIPs}
	for _, cidr := range c.ServiceCIDRs {
		// An address that no service has would go round between this node and its gateway.
		unserved = append(unserved, cidr.String())
	}
	var rejects []string
	for _, destination := range unserved {
		// TCP gets a reset: the kernel limits how many ICMP errors a client gets, and one that is not told waits.
		rejects = append(rejects,
			fmt.Sprintf("ct state new %s daddr %s meta l4proto tcp reject with tcp reset", ip, destination),
			fmt.Sprintf("ct state new %s daddr %s reject", ip, destination))
	}
	return Static{
		Sets: []Set{
			{Name: Services, Type: addr + " . inet_proto . inet_service", Verdicts: true},
			{Name: NodePorts, Type: "inet_proto . inet_service", Verdicts: true},
			{Name: HostPorts, Type: "inet_proto . inet_service", Verdicts: true},
			{Name: ClusterIPs, Type: addr},
			{Name: Hairpin, Type: addr + " . " + addr},
		},
		Chains: []Base{
			{Name: markChain, Rules: []string{fmt.Sprintf("meta mark set meta mark | %#x", markBit)}},
			{Name: "dispatch", Rules: []string{
				fmt.Sprintf("%s daddr . meta l4proto . th dport vmap @%s", ip, Services),
				fmt.Sprintf("%s meta l4proto . th dport vmap @%s", local, HostPorts),
				fmt.Sprintf("%s meta l4proto . th dport vmap @%s", local, NodePorts),
			}},
			{Name: "nat-prerouting", Type: "nat", Hook: "prerouting", Priority: "dstnat", Rules: []string{"jump dispatch"}},
			{Name: "nat-output", Type: "nat", Hook: "output", Priority: "dstnat", Rules: []string{"jump dispatch"}},
			{Name: "nat-postrouting", Type: "nat", Hook: "postrouting", Priority: "srcnat", Rules: postrouting},
			{Name: "filter-forward", Type: "filter", Hook: "forward", Priority: "filter", Rules: rejects},
			{Name: "filter-output", Type: "filter", Hook: "output", Priority: "filter", Rules: rejects},
		},
	}
}

// markChain marks a packet for masquerading.
const markChain = "mark-outside"

// outside matches packets whose source or destination is no pod.
func (c Config) outside(field string) string {
	switch len(c.ClusterCIDRs) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s %s != %s", c.addr(), field, c.ClusterCIDRs[0])
	}
	list := ""
	for i, p := range c.ClusterCIDRs {
		if i > 0 {
			list += ", "
		}
		list += p.String()
	}
	return fmt.Sprintf("%s %s != { %s }", c.addr(), field, list)
}
