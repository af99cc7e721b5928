// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
)

var (
	v4 = netip.MustParsePrefix("10.97.0.0/16")
	v6 = netip.MustParsePrefix("fd00:97::/108")
)

func aService(change ...func(*pcorev1.Service)) *pcorev1.Service {
	s := &pcorev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web"}}
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}
	for _, c := range change {
		c(s)
	}
	return s
}

// planWith plans with addresses and node ports that a service "other" holds.
func planWith(s *pcorev1.Service, ranges []netip.Prefix, held ...string) plan {
	holder := func(value string) (types.NamespacedName, bool) {
		for _, h := range held {
			if h == value {
				return types.NamespacedName{Namespace: "shop", Name: "other"}, true
			}
		}
		return types.NamespacedName{}, false
	}
	return makePlan(&scope{
		service: s, ranges: ranges,
		ipHolder:   func(a netip.Addr) (types.NamespacedName, bool) { return holder(a.String()) },
		portHolder: func(p nodePort) (types.NamespacedName, bool) { return holder(p.String()) },
	})
}

func TestPlan(t *testing.T) {
	single, dual := []netip.Prefix{v4}, []netip.Prefix{v4, v6}
	chosen := planWith(aService(), single).spec.ClusterIP
	for name, c := range map[string]struct {
		service *pcorev1.Service
		ranges  []netip.Prefix
		held    []string
		// ips, families and policy are compared when there is no problem.
		ips      []string
		families []corev1.IPFamily
		problem  string
		message  string
	}{
		"an address of the range": {service: aService(), ranges: single, ips: []string{chosen}, families: []corev1.IPFamily{corev1.IPv4Protocol}},
		"headless": {
			service: aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = "None" }), ranges: single,
			ips: []string{"None"}, families: []corev1.IPFamily{corev1.IPv4Protocol},
		},
		"the user's choice": {
			service: aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = "10.97.0.10" }), ranges: single,
			ips: []string{"10.97.0.10"}, families: []corev1.IPFamily{corev1.IPv4Protocol},
		},
		"the user's choice is another's": {
			service: aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = "10.97.0.10" }), ranges: single, held: []string{"10.97.0.10"},
			problem: endpoints.ReasonIPConflict, message: "belongs to the service shop/other",
		},
		"the user's choice is outside": {
			service: aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = "10.98.0.10" }), ranges: single,
			problem: endpoints.ReasonInvalidIP, message: "not in the service network 10.97.0.0/16",
		},
		"the user's choice is no address": {
			service: aService(func(s *pcorev1.Service) { s.Spec.ClusterIP = "web" }), ranges: single,
			problem: endpoints.ReasonInvalidIP, message: `"web" is no address`,
		},
		"both families where there are both": {
			service: aService(func(s *pcorev1.Service) { s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack) }), ranges: dual,
			ips: []string{chosen, "fd00:97::"}, families: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
		},
		"both preferred, one there": {
			service: aService(func(s *pcorev1.Service) { s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack) }), ranges: single,
			ips: []string{chosen}, families: []corev1.IPFamily{corev1.IPv4Protocol},
		},
		"both required, one there": {
			service: aService(func(s *pcorev1.Service) { s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack) }), ranges: single,
			problem: ReasonFamily, message: "requires two address families",
		},
		"a family that isn't there": {
			service: aService(func(s *pcorev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }), ranges: single,
			problem: ReasonFamily, message: "IPv6",
		},
		"a node port that is another's": {
			service: aService(func(s *pcorev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080 }), ranges: single,
			held: []string{"TCP/30080"}, problem: endpoints.ReasonPortConflict, message: "30080/TCP",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := planWith(c.service, c.ranges, c.held...)
			if c.problem != "" {
				if got.verdict.State != condition.Failed || got.verdict.Reason != c.problem || !strings.Contains(got.verdict.Message, c.message) {
					t.Errorf("verdict %+v, want %s with %q", got.verdict, c.problem, c.message)
				}
				return
			}
			if got.verdict.State != condition.Done {
				t.Errorf("verdict %+v", got.verdict)
			}
			ips := make([]string, len(got.spec.ClusterIPs))
			for i, ip := range got.spec.ClusterIPs {
				ips[i] = ip
				if strings.HasPrefix(ip, "fd00:97::") {
					ips[i] = "fd00:97::"
				}
			}
			if diff := cmp.Diff(c.ips, ips); diff != "" || got.spec.ClusterIP != got.spec.ClusterIPs[0] {
				t.Errorf("addresses: %s", diff)
			}
			if diff := cmp.Diff(c.families, got.spec.IPFamilies); diff != "" || got.spec.IPFamilyPolicy == nil {
				t.Errorf("families: %s", diff)
			}
			if again := planWith(aService(func(s *pcorev1.Service) { s.Spec = got.spec }), c.ranges, c.held...); !cmp.Equal(got.spec, again.spec) {
				t.Errorf("a second plan changes the spec: %s", cmp.Diff(got.spec, again.spec))
			}
		})
	}
}

func TestPlanExternalName(t *testing.T) {
	s := aService(func(s *pcorev1.Service) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.org"
	})
	if got := planWith(s, []netip.Prefix{v4}); !cmp.Equal(got.spec, s.Spec) || got.verdict.State != condition.Done {
		t.Errorf("%+v", got)
	}
}

func TestPlanNodePorts(t *testing.T) {
	s := aService(func(s *pcorev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "b", Port: 81, Protocol: corev1.ProtocolTCP}, {Name: "c", Port: 80, Protocol: corev1.ProtocolUDP}}
	})
	got := planWith(s, []netip.Prefix{v4})
	seen := map[string]bool{}
	for _, p := range got.spec.Ports {
		if p.NodePort < firstNodePort || p.NodePort > lastNodePort || seen[fmt.Sprint(p.Protocol, p.NodePort)] {
			t.Errorf("node port %d/%s", p.NodePort, p.Protocol)
		}
		seen[fmt.Sprint(p.Protocol, p.NodePort)] = true
	}
	if got.verdict.State != condition.InProgress || got.verdict.Reason != ReasonLoadBalancerPending {
		t.Errorf("without a load balancer: %+v", got.verdict)
	}
	if got.spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyCluster {
		t.Error("no external traffic policy")
	}
	s.Spec.AllocateLoadBalancerNodePorts = new(false)
	for _, p := range planWith(s, []netip.Prefix{v4}).spec.Ports {
		if p.NodePort != 0 {
			t.Error("a node port that was not wanted")
		}
	}
}

// TestPickAddress: every address is given out once, those for people to choose from last, then there is none.
func TestPickAddress(t *testing.T) {
	prefix := netip.MustParsePrefix("10.97.0.0/26")
	taken := map[netip.Addr]bool{}
	var order []netip.Addr
	for i := 0; ; i++ {
		addr, ok := pickAddress(prefix, types.NamespacedName{Namespace: "ns", Name: fmt.Sprint(i)}, func(a netip.Addr) bool { return taken[a] })
		if !ok {
			break
		}
		if taken[addr] || !prefix.Contains(addr) {
			t.Fatalf("%s was given out twice or is outside", addr)
		}
		taken[addr] = true
		order = append(order, addr)
	}
	if len(order) != 62 || taken[netip.MustParseAddr("10.97.0.0")] || taken[netip.MustParseAddr("10.97.0.63")] {
		t.Errorf("%d of 62 addresses were given out", len(order))
	}
	for i, addr := range order {
		if low := addr.As4()[3] <= 16; low != (i >= 46) {
			t.Errorf("%s was number %d", addr, i)
		}
	}
}

func TestColumns(t *testing.T) {
	for name, c := range map[string]struct {
		service *pcorev1.Service
		want    pcorev1.Columns
	}{
		"plain":                 {aService(func(s *pcorev1.Service) { s.Spec.Selector = map[string]string{"b": "2", "a": "1"} }), pcorev1.Columns{"externalIP": "<none>", "ports": "80/TCP", "selector": "a=1,b=2"}},
		"no ports, no selector": {aService(func(s *pcorev1.Service) { s.Spec.Ports = nil }), pcorev1.Columns{"externalIP": "<none>", "ports": "<none>", "selector": "<none>"}},
		"node port": {aService(func(s *pcorev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports = []corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}, {Port: 53, NodePort: 30053, Protocol: corev1.ProtocolUDP}}
		}), pcorev1.Columns{"externalIP": "<none>", "ports": "80:30080/TCP,53:30053/UDP", "selector": "<none>"}},
		"waiting load balancer": {aService(func(s *pcorev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }), pcorev1.Columns{"externalIP": "<pending>", "ports": "80/TCP", "selector": "<none>"}},
		"load balancer": {aService(func(s *pcorev1.Service) {
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}, {Hostname: "lb.example.org"}}
		}), pcorev1.Columns{"externalIP": "192.0.2.1,lb.example.org", "ports": "80/TCP", "selector": "<none>"}},
		"external name": {aService(func(s *pcorev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.Ports = corev1.ServiceTypeExternalName, "example.org", nil
		}), pcorev1.Columns{"externalIP": "example.org", "ports": "<none>", "selector": "<none>"}},
	} {
		if diff := cmp.Diff(c.want, makeStatus(c.service, condition.Verdict{}, metav1.Now().Time).Columns); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
