// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// outputMost bounds what is kept of an answer, as upstream's 10 KiB.
const outputMost = 10 << 10

// Exec runs a command in the container, for at most the timeout.
type Exec func(ctx context.Context, command []string, timeout time.Duration) (output string, exitCode int32, err error)

// Target is the container that is asked.
type Target struct {
	// IP is the pod's address.
	IP string
	// Ports are the container's, by which named ports are found.
	Ports []corev1.ContainerPort
	Exec  Exec
}

// Run asks once, for at most the timeout. ok tells success; output is what was answered, or why it failed. An error means that
// nothing could be learnt, which counts neither way.
func Run(ctx context.Context, handler *corev1.ProbeHandler, target Target, timeout time.Duration) (ok bool, output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case handler.Exec != nil:
		out, code, err := target.Exec(ctx, handler.Exec.Command, timeout)
		if status.Code(err) == codes.DeadlineExceeded || ctx.Err() == context.DeadlineExceeded {
			return false, fmt.Sprintf("command timed out after %s", timeout), nil
		}
		if err != nil {
			return false, "", fmt.Errorf("running the command: %w", err)
		}
		return code == 0, short(out), nil
	case handler.HTTPGet != nil:
		return httpGet(ctx, handler.HTTPGet, target)
	case handler.TCPSocket != nil:
		return tcp(ctx, handler.TCPSocket, target)
	case handler.GRPC != nil:
		return grpcHealth(ctx, handler.GRPC, target)
	}
	return false, "", fmt.Errorf("the probe has no action: set exec, httpGet, tcpSocket or grpc")
}

func tcp(ctx context.Context, action *corev1.TCPSocketAction, target Target) (bool, string, error) {
	port, err := Port(action.Port, target.Ports)
	if err != nil {
		return false, "", err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(orElse(action.Host, target.IP), strconv.Itoa(port)))
	if err != nil {
		return false, err.Error(), nil
	}
	_ = conn.Close() // It did what it was for.
	return true, "", nil
}

// client for HTTP probes: no connection is kept, certificates are not looked at, redirects stay on the host.
var client = &http.Client{
	Transport: &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // Upstream's rule: a probe asks whether it answers, not who.
		DisableKeepAlives:  true,
		DisableCompression: true,
		Proxy:              nil,
	},
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	},
}

func httpGet(ctx context.Context, action *corev1.HTTPGetAction, target Target) (bool, string, error) {
	request, err := Request(ctx, action, target)
	if err != nil {
		return false, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return false, err.Error(), nil
	}
	defer func() { _ = response.Body.Close() }() // The answer is read or of no interest.
	body, err := io.ReadAll(io.LimitReader(response.Body, outputMost))
	if err != nil {
		return false, err.Error(), nil
	}
	if response.StatusCode >= 200 && response.StatusCode < 400 {
		return true, string(body), nil
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", response.StatusCode), nil
}

// Request makes the HTTP request of a probe or a hook.
func Request(ctx context.Context, action *corev1.HTTPGetAction, target Target) (*http.Request, error) {
	port, err := Port(action.Port, target.Ports)
	if err != nil {
		return nil, err
	}
	path, err := url.Parse(action.Path)
	if err != nil {
		path = &url.URL{Path: action.Path}
	}
	path.Scheme = strings.ToLower(orElse(string(action.Scheme), "http"))
	path.Host = net.JoinHostPort(orElse(action.Host, target.IP), strconv.Itoa(port))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, path.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	for _, h := range action.HTTPHeaders {
		if strings.EqualFold(h.Name, "host") {
			request.Host = h.Value
			continue
		}
		request.Header.Add(h.Name, h.Value)
	}
	if _, set := request.Header["User-Agent"]; !set {
		request.Header.Set("User-Agent", "kube-probe/1.37")
	}
	if _, set := request.Header["Accept"]; !set {
		request.Header.Set("Accept", "*/*")
	}
	return request, nil
}

func grpcHealth(ctx context.Context, action *corev1.GRPCAction, target Target) (bool, string, error) {
	address := net.JoinHostPort(target.IP, strconv.Itoa(int(action.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/1.37"), grpc.WithNoProxy())
	if err != nil {
		return false, "", fmt.Errorf("connecting to %s: %w", address, err)
	}
	defer func() { _ = conn.Close() }() // It did what it was for.
	service := ""
	if action.Service != nil {
		service = *action.Service
	}
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		return false, fmt.Sprintf("gRPC health check of %q failed: %s", service, status.Convert(err).Message()), nil
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return false, fmt.Sprintf("service unhealthy (responded with %q)", answer.Status), nil
	}
	return true, "service healthy", nil
}

// Port resolves a port by number or by the name of one of the container's ports.
func Port(port intstr.IntOrString, ports []corev1.ContainerPort) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(port.StrVal); err == nil && n > 0 && n < 65536 {
		return n, nil
	}
	return 0, fmt.Errorf("the container has no port named %q", port.StrVal)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func short(s string) string {
	if len(s) > outputMost {
		return s[:outputMost]
	}
	return s
}
