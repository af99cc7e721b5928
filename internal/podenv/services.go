// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// OfServices are the variables by which containers find the services of their namespace that have an address, sorted by service: for
// a service named db, DB_SERVICE_HOST, DB_SERVICE_PORT, DB_SERVICE_PORT_<NAME> for each named port, and the variables of Docker's links.
// The rule is the kubelet's (pkg/kubelet/envvars).
func OfServices(services []pcorev1.Service) []Variable {
	sorted := slices.Clone(services)
	slices.SortFunc(sorted, func(a, b pcorev1.Service) int { return cmp.Compare(a.Name, b.Name) })
	var out []Variable
	for i := range sorted {
		s := &sorted[i]
		if ip := s.Spec.ClusterIP; ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		out = append(out, ofService(upper(s.Name), s.Spec.ClusterIP, s.Spec.Ports)...)
	}
	return out
}

func ofService(name, ip string, ports []corev1.ServicePort) []Variable {
	number := func(p corev1.ServicePort) string { return strconv.Itoa(int(p.Port)) }
	out := []Variable{{name + "_SERVICE_HOST", ip}, {name + "_SERVICE_PORT", number(ports[0])}}
	for _, p := range ports {
		if p.Name != "" {
			out = append(out, Variable{name + "_SERVICE_PORT_" + upper(p.Name), number(p)})
		}
	}
	for i, p := range ports {
		protocol := cmp.Or(string(p.Protocol), string(corev1.ProtocolTCP))
		address := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, number(p))
		if i == 0 {
			out = append(out, Variable{name + "_PORT", address})
		}
		port := name + "_PORT_" + number(p) + "_" + strings.ToUpper(protocol)
		out = append(out,
			Variable{port, address}, Variable{port + "_PROTO", strings.ToLower(protocol)}, Variable{port + "_PORT", number(p)}, Variable{port + "_ADDR", ip})
	}
	return out
}

func upper(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
