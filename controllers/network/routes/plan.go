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

// plan is what the machine's network should be.
type plan struct {
	// podCIDRs are the node's own; empty as long as it has none.
	podCIDRs []string
	routes   []podnetwork.Route
}

// makePlan computes it from all nodes. self is the node's own name, or empty for a machine that is no node, which reaches
// the services through the first node that is ready.
func makePlan(self string, nodes []*pcorev1.Node, services []netip.Prefix) plan {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *pcorev1.Node) int { return strings.Compare(a.Name, b.Name) })
	var p plan
	for _, node := range nodes {
		if node.Name == self && self != "" {
			p.podCIDRs = podCIDRs(node)
			continue
		}
		for _, text := range podCIDRs(node) {
			cidr, err := netip.ParsePrefix(text)
			if err != nil {
				continue // No controller of ours writes such.
			}
			if gateway, ok := address(node, cidr.Addr().Is6()); ok {
				p.routes = append(p.routes, podnetwork.Route{Destination: cidr.Masked(), Gateway: gateway})
			}
		}
	}
	if self == "" {
		p.routes = append(p.routes, serviceRoutes(nodes, services)...)
	}
	return p
}

func serviceRoutes(nodes []*pcorev1.Node, services []netip.Prefix) []podnetwork.Route {
	var routes []podnetwork.Route
	for _, cidr := range services {
		var fallback, chosen netip.Addr
		for _, node := range nodes {
			gateway, ok := address(node, cidr.Addr().Is6())
			if !ok || len(podCIDRs(node)) == 0 {
				continue
			}
			if !fallback.IsValid() {
				fallback = gateway
			}
			if ready(node) {
				chosen = gateway
				break
			}
		}
		if !chosen.IsValid() {
			chosen = fallback
		}
		if chosen.IsValid() {
			routes = append(routes, podnetwork.Route{Destination: cidr, Gateway: chosen})
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

func ready(node *pcorev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
