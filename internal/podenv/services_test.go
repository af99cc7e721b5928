// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func TestOfServices(t *testing.T) {
	service := func(name, ip string, ports ...corev1.ServicePort) pcorev1.Service {
		s := pcorev1.Service{}
		s.Name, s.Spec.ClusterIP, s.Spec.Ports = name, ip, ports
		return s
	}
	got := OfServices([]pcorev1.Service{
		service("web-ui", "fd00::1", corev1.ServicePort{Name: "h-1", Port: 80, Protocol: corev1.ProtocolTCP}, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}),
		service("headless", "None", corev1.ServicePort{Port: 80}),
		service("waiting", "", corev1.ServicePort{Port: 80}),
		service("db", "10.97.0.5", corev1.ServicePort{Port: 5432}),
	})
	want := []Variable{
		{"DB_SERVICE_HOST", "10.97.0.5"},
		{"DB_SERVICE_PORT", "5432"},
		{"DB_PORT", "tcp://10.97.0.5:5432"},
		{"DB_PORT_5432_TCP", "tcp://10.97.0.5:5432"},
		{"DB_PORT_5432_TCP_PROTO", "tcp"},
		{"DB_PORT_5432_TCP_PORT", "5432"},
		{"DB_PORT_5432_TCP_ADDR", "10.97.0.5"},
		{"WEB_UI_SERVICE_HOST", "fd00::1"},
		{"WEB_UI_SERVICE_PORT", "80"},
		{"WEB_UI_SERVICE_PORT_H_1", "80"},
		{"WEB_UI_SERVICE_PORT_DNS", "53"},
		{"WEB_UI_PORT", "tcp://[fd00::1]:80"},
		{"WEB_UI_PORT_80_TCP", "tcp://[fd00::1]:80"},
		{"WEB_UI_PORT_80_TCP_PROTO", "tcp"},
		{"WEB_UI_PORT_80_TCP_PORT", "80"},
		{"WEB_UI_PORT_80_TCP_ADDR", "fd00::1"},
		{"WEB_UI_PORT_53_UDP", "udp://[fd00::1]:53"},
		{"WEB_UI_PORT_53_UDP_PROTO", "udp"},
		{"WEB_UI_PORT_53_UDP_PORT", "53"},
		{"WEB_UI_PORT_53_UDP_ADDR", "fd00::1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
