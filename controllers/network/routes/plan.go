// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
)

// makePlan returns the routes to the pods of all nodes but the one called self.
func makePlan(self string, nodes []*pcorev1.Node) []podnetwork.Route {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *pcorev1.Node) int { return strings.Compare(a.Name, b.Name) })
	var routes []podnetwork.Route
	for _, node := range nodes {
		if node.Name == self {
			continue
		}
		for _, text := range podCIDRs(node) {
			cidr, err := netip.ParsePrefix(text)
			if err != nil {
				continue // No controller of ours writes such.
			}
			if gateway, ok := address(node, cidr.Addr().Is6()); ok {
				routes = append(routes, podnetwork.Route{Destination: cidr.Masked(), Gateway: gateway})
			}
		}
	}
	return routes
}

func podCIDRs(node *pcorev1.Node) []string {
	if len(node.Spec.PodCIDRs) == 0 && node.Spec.PodCIDR != "" {
		return []string{node.Spec.PodCIDR}
	}
	return node.Spec.PodCIDRs
}

// address is the node's internal address of a family.
func address(node *pcorev1.Node, ipv6 bool) (netip.Addr, bool) {
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Is6() == ipv6 {
			return addr, true
		}
	}
	return netip.Addr{}, false
}
