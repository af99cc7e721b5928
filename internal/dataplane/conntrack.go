// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// forgetFlows makes the kernel forget the UDP connections of flows. A TCP client notices that its endpoint is gone and
// connects anew; a UDP client, such as a resolver, would send to the old endpoint for as long as it sends often enough.
func forgetFlows(flows []ruleset.Flow) error {
	for _, flow := range flows {
		family := netlink.InetFamily(unix.AF_INET)
		if flow.VIP.Addr().Is6() {
			family = unix.AF_INET6
		}
		filter := &netlink.ConntrackFilter{}
		err := filter.AddProtocol(unix.IPPROTO_UDP)
		if err == nil {
			err = filter.AddIP(netlink.ConntrackOrigDstIP, net.IP(flow.VIP.Addr().AsSlice()))
		}
		if err == nil {
			err = filter.AddPort(netlink.ConntrackOrigDstPort, flow.VIP.Port())
		}
		if err == nil {
			err = filter.AddIP(netlink.ConntrackReplySrcIP, net.IP(flow.Endpoint.Addr().AsSlice()))
		}
		if err != nil {
			return fmt.Errorf("describing the connections to %s: %w", flow.Endpoint, err)
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter); err != nil {
			return fmt.Errorf("forgetting the connections to %s: %w", flow.Endpoint, err)
		}
	}
	return nil
}
