// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These mark the routes that are ours, so that they are found again after a restart and nobody else's are touched: an
// agent's to other nodes' pods, and a machine's to the nodes on it that have a network of their own. The numbers are free
// in /etc/iproute2/rt_protos.
const (
	agentProtocol   netlink.RouteProtocol = 88
	machineProtocol netlink.RouteProtocol = 89
)

// Route leads to the pods of another node.
type Route struct {
	Destination netip.Prefix
	// Gateway is the other node's address; it must be on a segment of this machine.
	Gateway netip.Addr
}

// String is as `ip route` shows it.
func (r Route) String() string { return r.Destination.String() + " via " + r.Gateway.String() }

// UnreachableError says that a node's address is on no segment of this machine, so that a plain route can't lead there.
type UnreachableError struct{ Route Route }

// Error is one sentence with the way out.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("pods in %s can't be reached: their node's address %s is on no network that this node is directly connected to; "+
		"put the nodes on one segment, or add routes to the pod networks on the routers between them", e.Route.Destination, e.Route.Gateway)
}

// EnsureRoutes makes an agent's routes exactly these, in the network namespace of the calling thread. It goes on after an
// error, so that one unreachable node doesn't cut off the others, and returns all errors joined.
func EnsureRoutes(routes []Route) error {
	return ensureRoutes(agentProtocol, func(netip.Prefix) bool { return true }, routes)
}

// EnsureMachineRoutes does the same with a machine's routes to its nodes, as far as they lead into these networks: others
// are of another cluster on the machine.
func EnsureMachineRoutes(networks []netip.Prefix, routes []Route) error {
	return ensureRoutes(machineProtocol, func(destination netip.Prefix) bool {
		return slices.ContainsFunc(networks, destination.Overlaps)
	}, routes)
}

func ensureRoutes(protocol netlink.RouteProtocol, ours func(netip.Prefix) bool, routes []Route) error {
	filter := &netlink.Route{Protocol: protocol, Table: unix.RT_TABLE_MAIN}
	existing, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("listing the routes: %w", err)
	}
	wanted := map[netip.Prefix]netip.Addr{}
	for _, r := range routes {
		wanted[r.Destination.Masked()] = r.Gateway
	}
	var failures []error
	for i := range existing {
		destination, gateway := prefixOf(existing[i].Dst), addrOf(existing[i].Gw)
		if want, ok := wanted[destination]; ok && want == gateway {
			delete(wanted, destination)
			continue
		} else if ok || !ours(destination) {
			continue // Either replaced below, or not ours to remove.
		}
		if err := netlink.RouteDel(&existing[i]); err != nil && !errors.Is(err, syscall.ESRCH) {
			failures = append(failures, fmt.Errorf("removing the route to %s: %w", destination, err))
		}
	}
	for destination, gateway := range wanted {
		err := netlink.RouteReplace(&netlink.Route{Dst: ipNet(destination), Gw: gateway.AsSlice(), Protocol: protocol})
		switch {
		case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
			failures = append(failures, &UnreachableError{Route{destination, gateway}})
		case err != nil:
			failures = append(failures, fmt.Errorf("setting the route to %s: %w", destination, err))
		}
	}
	return errors.Join(failures...)
}

// DetectMTU returns the MTU of the interface that the default route uses, or 0 where there is none.
func DetectMTU() int {
	link, err := defaultLink()
	if err != nil || link == nil {
		return 0
	}
	return link.Attrs().MTU
}

// defaultLink is the interface of the IPv4 default route, or nil.
func defaultLink() (netlink.Link, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("listing the routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if r.LinkIndex == 0 {
			continue
		}
		return netlink.LinkByIndex(r.LinkIndex)
	}
	return nil, nil
}

// NodeAddress returns the address by which other machines reach this one: that of the default route's interface.
// The zero address and no error mean that there is none.
func NodeAddress() (netip.Addr, error) {
	link, err := defaultLink()
	if err != nil || link == nil {
		return netip.Addr{}, err
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("listing the addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addresses {
		if addr := addrOf(a.IP); addr.IsGlobalUnicast() {
			return addr, nil
		}
	}
	return netip.Addr{}, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
