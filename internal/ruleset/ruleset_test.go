// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
)

var config = Config{
	Family: IPv4, NodeName: "here",
	ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
	PodCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
}

func aService(change ...func(*pcorev1.Service)) *pcorev1.Service {
	s := &pcorev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.97.0.10", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}
	for _, c := range change {
		c(s)
	}
	return s
}

// aSlice reads endpoints such as "10.244.1.5@here" (ready), "…@there!" (not ready), "…@here~" (ending and serving).
func aSlice(endpoints ...string) *pdiscoveryv1.EndpointSlice {
	protocol := corev1.ProtocolTCP
	s := &pdiscoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: &protocol}}}
	for _, text := range endpoints {
		ip, node, _ := strings.Cut(text, "@")
		ready, ending := !strings.ContainsAny(node, "!~"), strings.Contains(node, "~")
		node = strings.TrimRight(node, "!~")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: new(ready || ending), Terminating: &ending},
		})
	}
	return s
}

// render is a fragment as text: chains with their rules, then elements.
func render(f Fragment) []string {
	names := map[string]string{}
	var out []string
	for i, c := range f.Chains {
		prefix, _, _ := strings.Cut(c.Name, "-")
		names[c.Name] = fmt.Sprintf("%s#%d", prefix, i)
		for _, rule := range c.Rules {
			out = append(out, names[c.Name]+": "+rule)
		}
	}
	for _, e := range f.Elements {
		value := e.Value
		for name, short := range names {
			value = strings.ReplaceAll(value, name, short)
		}
		out = append(out, strings.TrimSpace(e.Set+" "+strings.Join(e.Key, " . ")+" "+value))
	}
	return out
}

func TestService(t *testing.T) {
	const mark = "svc#0: ip saddr != 10.244.0.0/16 jump mark-outside"
	for name, c := range map[string]struct {
		service *pcorev1.Service
		slices  []*pdiscoveryv1.EndpointSlice
		want    []string
	}{
		"one endpoint elsewhere": {
			aService(), []*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there")},
			[]string{mark, "svc#0: meta l4proto tcp dnat to 10.244.2.5:8080", "cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0"},
		},
		"endpoints here and there, from two slices, in one order": {
			aService(), []*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there"), aSlice("10.244.1.5@here", "10.244.2.5@there")},
			[]string{
				mark, "svc#0: meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.5 . 8080, 1 : 10.244.2.5 . 8080 }",
				"cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0", "hairpin 10.244.1.5 . 10.244.1.5",
			},
		},
		"those that are not ready are left out": {
			aService(), []*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there!", "10.244.2.6@there", "10.244.2.7@there~")},
			[]string{mark, "svc#0: meta l4proto tcp dnat to 10.244.2.6:8080", "cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0"},
		},
		"when none is ready, those that still serve": {
			aService(), []*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there!", "10.244.2.7@there~")},
			[]string{mark, "svc#0: meta l4proto tcp dnat to 10.244.2.7:8080", "cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0"},
		},
		"none: the address is there to be refused": {aService(), nil, []string{"cluster-ips 10.97.0.10"}},
		"headless":       {aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }), []*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there")}, nil},
		"external name":  {aService(func(s *pcorev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }), nil, nil},
		"no address yet": {aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = "" }), nil, nil},
		"affinity": {
			aService(func(s *pcorev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
			[]*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there", "10.244.2.6@there")},
			[]string{
				mark, "svc#0: meta l4proto tcp dnat ip addr . port to jhash ip saddr mod 2 seed 0x1 map { 0 : 10.244.2.5 . 8080, 1 : 10.244.2.6 . 8080 }",
				"cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0",
			},
		},
		"internal traffic stays on the node": {
			aService(func(s *pcorev1.Service) {
				s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
			}),
			[]*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there", "10.244.1.6@here")},
			[]string{mark, "svc#0: meta l4proto tcp dnat to 10.244.1.6:8080", "cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0", "hairpin 10.244.1.6 . 10.244.1.6"},
		},
		"node port": {
			aService(func(s *pcorev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080 }),
			[]*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there")},
			[]string{
				mark, "svc#0: meta l4proto tcp dnat to 10.244.2.5:8080", "ext#1: jump mark-outside", "ext#1: meta l4proto tcp dnat to 10.244.2.5:8080",
				"cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0", "nodeports tcp . 30080 goto ext#1",
			},
		},
		"node port that keeps the source has no way to other nodes": {
			aService(func(s *pcorev1.Service) {
				s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			}),
			[]*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there")},
			[]string{mark, "svc#0: meta l4proto tcp dnat to 10.244.2.5:8080", "cluster-ips 10.97.0.10", "services 10.97.0.10 . tcp . 80 goto svc#0"},
		},
		"external addresses": {
			aService(func(s *pcorev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.1", "2001:db8::1", "10.97.0.10"} }),
			[]*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there")},
			[]string{
				mark, "svc#0: meta l4proto tcp dnat to 10.244.2.5:8080", "cluster-ips 10.97.0.10",
				"services 10.97.0.10 . tcp . 80 goto svc#0", "services 192.0.2.1 . tcp . 80 goto svc#0",
			},
		},
		"another port's endpoints": {
			aService(func(s *pcorev1.Service) { s.Spec.Ports[0].Name = "grpc" }),
			[]*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there")}, []string{"cluster-ips 10.97.0.10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, render(config.Service(c.service, c.slices))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServiceInBothFamilies(t *testing.T) {
	both := aService(func(s *pcorev1.Service) { s.Spec.ClusterIPs = []string{"10.97.0.10", "fd00:97::10"} })
	v6 := aSlice("fd00:244::5@here")
	v6.AddressType = discoveryv1.AddressTypeIPv6
	slices := []*pdiscoveryv1.EndpointSlice{aSlice("10.244.2.5@there"), v6}
	six := Config{Family: IPv6, NodeName: "here", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:244::/56")}}
	want := []string{
		"svc#0: ip6 saddr != fd00:244::/56 jump mark-outside", "svc#0: meta l4proto tcp dnat to [fd00:244::5]:8080",
		"cluster-ips fd00:97::10", "services fd00:97::10 . tcp . 80 goto svc#0", "hairpin fd00:244::5 . fd00:244::5",
	}
	if diff := cmp.Diff(want, render(six.Service(both, slices))); diff != "" {
		t.Error(diff)
	}
}

func TestHostPorts(t *testing.T) {
	pod := func(change ...func(*pcorev1.Pod)) *pcorev1.Pod {
		p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}}
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 80}, {ContainerPort: 53, HostPort: 53, Protocol: corev1.ProtocolUDP, HostIP: "192.0.2.1"}, {ContainerPort: 9}}}}
		p.Status.PodIP = "10.244.1.5"
		for _, c := range change {
			c(p)
		}
		return p
	}
	want := []string{
		"host#0: meta l4proto tcp dnat to 10.244.1.5:8080", "host#1: ip daddr 192.0.2.1 meta l4proto udp dnat to 10.244.1.5:53",
		"hostports tcp . 80 goto host#0", "hostports udp . 53 goto host#1", "hairpin 10.244.1.5 . 10.244.1.5",
	}
	if diff := cmp.Diff(want, render(config.HostPorts(pod()))); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(*pcorev1.Pod){
		"done":             func(p *pcorev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"the host's own":   func(p *pcorev1.Pod) { p.Spec.HostNetwork = true },
		"no address yet":   func(p *pcorev1.Pod) { p.Status.PodIP = "" },
		"no ports of host": func(p *pcorev1.Pod) { p.Spec.Containers = nil },
	} {
		if got := render(config.HostPorts(pod(change))); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestUDPFlows(t *testing.T) {
	dns := aService(func(s *pcorev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP })
	protocol := corev1.ProtocolUDP
	slice := aSlice("10.244.2.5@there")
	slice.Ports[0].Protocol = &protocol
	got := config.Service(dns, []*pdiscoveryv1.EndpointSlice{slice}).UDP
	if len(got) != 1 || got[0].VIP.String() != "10.97.0.10:80" || got[0].Endpoint.String() != "10.244.2.5:8080" {
		t.Errorf("%v", got)
	}
}
