// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/knftables"
)

// Segment is the network that joins the node namespaces of one machine: a bridge in the host's own namespace.
type Segment struct {
	// Bridge is its name, such as pinnace-up, at most 15 characters.
	Bridge string
	// Network is its range, a /24 or larger; the host has its first address.
	Network netip.Prefix
}

// DefaultSegmentNetworks are tried in order by ChooseSegment.
var DefaultSegmentNetworks = []string{"172.30.0.0/24", "172.29.0.0/24", "172.28.0.0/24", "192.168.230.0/24", "10.213.7.0/24"}

// ChooseSegment returns the segment of a bridge: the one that it has already, else the first of the candidates that no
// network of this machine overlaps.
func ChooseSegment(bridge string, candidates []string) (Segment, error) {
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return Segment{}, fmt.Errorf("listing the machine's addresses: %w", err)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return Segment{}, fmt.Errorf("listing the machine's routes: %w", err)
	}
	if link, err := netlink.LinkByName(bridge); err == nil {
		for _, a := range addresses {
			if a.LinkIndex == link.Attrs().Index {
				return Segment{Bridge: bridge, Network: prefixOf(a.IPNet).Masked()}, nil
			}
		}
	}
	var taken []netip.Prefix
	for _, a := range addresses {
		taken = append(taken, prefixOf(a.IPNet))
	}
	for _, r := range routes {
		if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 {
			taken = append(taken, p)
		}
	}
	for _, candidate := range candidates {
		network, err := netip.ParsePrefix(candidate)
		if err != nil {
			return Segment{}, fmt.Errorf("the network %q for the nodes is none: %w", candidate, err)
		}
		if !overlapsAny(network, taken) {
			return Segment{Bridge: bridge, Network: network.Masked()}, nil
		}
	}
	return Segment{}, fmt.Errorf("each of the networks %v for the nodes of this machine is in use here: free one of them, or run a single node, which needs none", candidates)
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

// HostAddress is the host's own address on the segment, and the nodes' default gateway.
func (s Segment) HostAddress() netip.Addr { return s.Network.Masked().Addr().Next() }

// NodeAddress is the address of the node with that number, from 1.
func (s Segment) NodeAddress(number int) (netip.Addr, error) {
	addr := s.HostAddress()
	for range number + 8 { // The first few stay free.
		addr = addr.Next()
	}
	if number < 1 || !s.Network.Contains(addr.Next()) {
		return netip.Addr{}, fmt.Errorf("the network %s has no address for node number %d", s.Network, number)
	}
	return addr, nil
}

// table of the host's own rules for the segment.
func (s Segment) table() string { return s.Bridge }

// EnsureSegment makes the bridge, and the rule by which its nodes reach what is outside the machine. Idempotent.
func EnsureSegment(ctx context.Context, s Segment) error {
	if len(s.Bridge) > maxInterfaceName {
		return fmt.Errorf("the bridge's name %q is longer than the kernel allows (%d characters)", s.Bridge, maxInterfaceName)
	}
	bridge, err := ensureLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: s.Bridge}})
	if err != nil {
		return err
	}
	if err := ensureAddress(bridge, netip.PrefixFrom(s.HostAddress(), s.Network.Bits())); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bringing up the bridge %s: %w", s.Bridge, err)
	}
	return s.ensureMasquerade(ctx)
}

// ensureMasquerade hides the nodes' addresses from what is outside. Pods have been hidden behind their node by then.
func (s Segment) ensureMasquerade(ctx context.Context) error {
	nft, err := knftables.New(knftables.IPv4Family, s.table())
	if err != nil {
		return fmt.Errorf("finding the program nft (install the package nftables): %w", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("nodes of pinnace up")})
	tx.Add(&knftables.Chain{
		Name: "postrouting", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Flush(&knftables.Chain{Name: "postrouting"})
	tx.Add(&knftables.Rule{Chain: "postrouting", Rule: knftables.Concat("ip saddr", s.Network.String(), "oifname !=", s.Bridge, "masquerade")})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("writing the packet rules of the bridge %s: %w", s.Bridge, err)
	}
	return nil
}

// RemoveSegment removes the bridge and its rules. Missing is fine.
func RemoveSegment(ctx context.Context, s Segment) error {
	var failures []error
	if nft, err := knftables.New(knftables.IPv4Family, s.table()); err == nil {
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{}) // so that deleting one that is missing is no error
		tx.Delete(&knftables.Table{})
		failures = append(failures, nft.Run(ctx, tx))
	}
	failures = append(failures, removeLink(s.Bridge))
	return errors.Join(failures...)
}

// Node is a node's place on a segment.
type Node struct {
	// Netns is the name of its network namespace.
	Netns string
	// Address is its address on the segment; see Segment.NodeAddress.
	Address netip.Addr
	Segment Segment
}

// nodeInterface is the name of a node's interface in its own namespace.
const nodeInterface = "eth0"

// hostInterface is the host's end of the cable; the namespace's name may be too long for it.
func (n Node) hostInterface() string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(n.Netns))
	return fmt.Sprintf("pn%08x", h.Sum32())
}

// EnsureNodeNetns makes the namespace of a node and plugs it into the segment, which must exist. What is there already
// stays, so pods keep their connections when it is called again. It returns the file of the namespace.
func EnsureNodeNetns(n Node) (string, error) {
	if _, err := ensureNetns(n.Netns); err != nil {
		return "", err
	}
	path := NetnsPath(n.Netns)
	plugged := false
	err := InNetns(path, func() error {
		_, err := netlink.LinkByName(nodeInterface)
		plugged = err == nil
		return ignoreMissingLink(err)
	})
	if err != nil {
		return "", err
	}
	if !plugged {
		if err := n.plug(path); err != nil {
			return "", err
		}
	}
	host, err := netlink.LinkByName(n.hostInterface())
	if err != nil {
		return "", fmt.Errorf("finding the interface of %s: %w", n.Netns, err)
	}
	bridge, err := netlink.LinkByName(n.Segment.Bridge)
	if err != nil {
		return "", fmt.Errorf("finding the bridge %s: %w", n.Segment.Bridge, err)
	}
	if err := errors.Join(netlink.LinkSetMaster(host, bridge), netlink.LinkSetUp(host)); err != nil {
		return "", fmt.Errorf("plugging %s into the bridge: %w", n.Netns, err)
	}
	if err := InNetns(path, n.configure); err != nil {
		return "", fmt.Errorf("configuring the network of %s: %w", n.Netns, err)
	}
	return path, nil
}

// plug lays the cable: one end here, one in the namespace.
func (n Node) plug(path string) error {
	// A host end without its other end is a leftover.
	if err := removeLink(n.hostInterface()); err != nil {
		return err
	}
	attrs := netlink.LinkAttrs{Name: n.hostInterface(), MTU: DetectMTU()}
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "pv" + strings.TrimPrefix(n.hostInterface(), "pn")}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the interfaces of %s: %w", n.Netns, err)
	}
	peer, err := netlink.LinkByName(veth.PeerName)
	if err != nil {
		return fmt.Errorf("finding the interface of %s: %w", n.Netns, err)
	}
	file, err := openNetns(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := netlink.LinkSetNsFd(peer, int(file.Fd())); err != nil {
		return fmt.Errorf("moving the interface into %s: %w", n.Netns, err)
	}
	return InNetns(path, func() error {
		link, err := netlink.LinkByName(veth.PeerName)
		if err != nil {
			return err
		}
		return netlink.LinkSetName(link, nodeInterface)
	})
}

// configure runs in the namespace.
func (n Node) configure() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(nodeInterface)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(loopback), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	if err := ensureAddress(link, netip.PrefixFrom(n.Address, n.Segment.Network.Bits())); err != nil {
		return err
	}
	gateway := n.Segment.HostAddress().AsSlice()
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway}); err != nil {
		return fmt.Errorf("setting the default route: %w", err)
	}
	return nil
}

// RemoveNodeNetns unplugs a node and lets its namespace go. Missing is fine.
func RemoveNodeNetns(n Node) error {
	return errors.Join(removeLink(n.hostInterface()), removeNetns(n.Netns))
}

// ensureLink makes an interface unless there is one of its name and kind.
func ensureLink(link netlink.Link) (netlink.Link, error) {
	name := link.Attrs().Name
	existing, err := netlink.LinkByName(name)
	if err == nil {
		if existing.Type() != link.Type() {
			return nil, fmt.Errorf("there is an interface %s already, and it is no %s: rename it, or choose another name", name, link.Type())
		}
		return existing, nil
	}
	if err := ignoreMissingLink(err); err != nil {
		return nil, fmt.Errorf("looking for the interface %s: %w", name, err)
	}
	if err := netlink.LinkAdd(link); err != nil {
		if errors.Is(err, syscall.EPERM) {
			return nil, fmt.Errorf("making the interface %s needs root: %w", name, err)
		}
		return nil, fmt.Errorf("making the interface %s: %w", name, err)
	}
	return netlink.LinkByName(name)
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return ignoreMissingLink(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("removing the interface %s: %w", name, err)
	}
	return nil
}

func ignoreMissingLink(err error) error {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}

func ensureAddress(link netlink.Link, address netip.Prefix) error {
	err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(address)})
	if err != nil {
		return fmt.Errorf("giving %s the address %s: %w", link.Attrs().Name, address, err)
	}
	return nil
}
