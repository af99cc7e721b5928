// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func run(t *testing.T, handler corev1.ProbeHandler, target Target) (bool, string, error) {
	t.Helper()
	return Run(t.Context(), &handler, target, 5*time.Second)
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fail":
			w.WriteHeader(http.StatusInternalServerError)
		case "/away":
			http.Redirect(w, r, "http://example.invalid/", http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/fail", http.StatusFound)
		case "/host":
			_, _ = w.Write([]byte(r.Host + " " + r.Header.Get("X-Test") + " " + r.URL.RawQuery))
		}
	}))
	defer server.Close()
	ip, port, err := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/": true, "/fail": false, "/away": true, "/near": false} {
		ok, out, err := run(t, corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.Parse(port)}}, Target{IP: ip})
		if ok != want || err != nil {
			t.Errorf("%s: %v %q %v, want %v", path, ok, out, err, want)
		}
	}
	ok, out, err := run(t, corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
		Path: "/host?q=1", Port: intstr.Parse(port), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "my.host"}, {Name: "X-Test", Value: "yes"}},
	}}, Target{IP: ip})
	if !ok || out != "my.host yes q=1" || err != nil {
		t.Errorf("headers and query: %v %q %v", ok, out, err)
	}
}

func TestTCPAndNamedPorts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	target := Target{IP: "127.0.0.1", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}
	byName := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}
	if ok, out, err := run(t, byName, target); !ok || err != nil {
		t.Errorf("open: %q %v", out, err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if ok, _, err := run(t, byName, target); ok || err != nil {
		t.Errorf("closed: %v %v", ok, err)
	}
	if _, _, err := run(t, corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("none")}}, target); err == nil {
		t.Error("a port that isn't there was found")
	}
}

func TestGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, service := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, service)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	service.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	for name, want := range map[string]bool{"": true, "down": false, "unknown": false} {
		ok, out, err := run(t, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: &name}}, Target{IP: "127.0.0.1"})
		if ok != want || err != nil {
			t.Errorf("service %q: %v %q %v, want %v", name, ok, out, err, want)
		}
	}
}

func TestExec(t *testing.T) {
	answers := func(code int32, err error) Target {
		return Target{Exec: func(context.Context, []string, time.Duration) (string, int32, error) { return "said", code, err }}
	}
	handler := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}
	if ok, out, err := run(t, handler, answers(0, nil)); !ok || out != "said" || err != nil {
		t.Errorf("exit 0: %v %q %v", ok, out, err)
	}
	if ok, _, err := run(t, handler, answers(1, nil)); ok || err != nil {
		t.Errorf("exit 1: %v %v", ok, err)
	}
	if _, _, err := run(t, handler, answers(0, errors.New("broken"))); err == nil {
		t.Error("a broken runtime says nothing of the container")
	}
}
