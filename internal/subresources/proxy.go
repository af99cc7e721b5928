// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	httpstreamspdy "k8s.io/streaming/pkg/httpstream/spdy"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// forwardProtocol is that of forwarded ports.
const forwardProtocol = "portforward.k8s.io"

// serveProxy asks a port of a pod over HTTP. The manager need have no route to the pod: it forwards the port by the agent.
func (s *Server) serveProxy(w http.ResponseWriter, r *http.Request) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(r.PathValue("name"))
	if !ok {
		access.WriteError(w, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q: it is name, name:port or scheme:name:port", r.PathValue("name"))))
		return
	}
	pod := &pcorev1.Pod{}
	err := s.Objects.Get(r.Context(), types.NamespacedName{Namespace: r.PathValue("namespace"), Name: name}, pod)
	if err == nil {
		err = bound(pod)
	}
	number := int32(0)
	if err == nil {
		number, err = choosePort(&pod.Spec.PodSpec, port)
	}
	if err != nil {
		access.WriteError(w, err)
		return
	}
	_, path, _ := strings.Cut(r.URL.EscapedPath(), "/"+r.PathValue("name")+"/proxy")
	if scheme == "" {
		scheme = "http"
	}
	target := &url.URL{Scheme: scheme, Host: net.JoinHostPort(name, strconv.Itoa(int(number))), RawQuery: r.URL.RawQuery}
	if target.Path, err = url.PathUnescape(path); err != nil {
		access.WriteError(w, apierrors.NewBadRequest("the path: "+err.Error()))
		return
	}
	if target.RawPath = path; target.Path == "" {
		target.Path, target.RawPath = "/", ""
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.Agents.dialPod(ctx, pod, number)
		},
		// As upstream's: whoever asks for https gets it encrypted, and knows by no authority whom they talk to.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: quiet(logf.FromContext(r.Context())),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = target, ""
			// The pod is to see nothing of who the user is to the API server.
			for header := range p.Out.Header {
				if header == "Authorization" || header == "Cookie" || strings.HasPrefix(header, "X-Remote-") {
					p.Out.Header.Del(header)
				}
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			access.WriteError(w, apierrors.NewServiceUnavailable(fmt.Sprintf("asking port %d of the pod %s: %v", number, name, err)))
		},
	}
	proxy.ServeHTTP(w, r)
}

// choosePort is pure: a number, a container port's name, or the first port that the pod names.
func choosePort(spec *corev1.PodSpec, port string) (int32, error) {
	if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
		return int32(number), nil
	}
	for i := range spec.Containers {
		for _, p := range spec.Containers[i].Ports {
			if port == "" || p.Name == port {
				return p.ContainerPort, nil
			}
		}
	}
	if port == "" {
		return 80, nil // As a URL without a port.
	}
	return 0, apierrors.NewServiceUnavailable(fmt.Sprintf("no port %q in the pod: give a number, or the name of a container's port", port))
}

// dialPod connects to a port of a pod through the agent of its node. The connection holds the whole stream: closing it ends it.
func (a *Agents) dialPod(ctx context.Context, pod *pcorev1.Pod, port int32) (net.Conn, error) {
	agent, transport, err := a.Locate(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	trip, err := httpstreamspdy.NewRoundTripperWithConfig(httpstreamspdy.RoundTripperConfig{
		TLS: transport.(*http.Transport).TLSClientConfig.Clone(), PingPeriod: 5 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the forwarding of a port: %w", err)
	}
	at := agent.JoinPath("portForward", pod.Namespace, pod.Name, string(pod.UID))
	connection, _, err := spdy.NewDialerForStreaming(spdy.NewUpgraderForStreaming(trip), &http.Client{Transport: trip}, http.MethodPost, at).Dial(forwardProtocol)
	if err != nil {
		return nil, fmt.Errorf("asking the agent of node %s for the port: %w", pod.Spec.NodeName, err)
	}
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	faults, err := connection.CreateStream(headers)
	if err == nil {
		_ = faults.Close() // Nothing is written to it.
		headers.Set(corev1.StreamType, corev1.StreamTypeData)
		var data httpstream.Stream
		if data, err = connection.CreateStream(headers); err == nil {
			return &podConn{Stream: data, connection: connection}, nil
		}
	}
	_ = connection.Close()
	return nil, fmt.Errorf("opening a stream to the pod: %w", err)
}

// podConn is a stream to a port as a network connection. Deadlines have no effect on it.
type podConn struct {
	httpstream.Stream
	connection httpstream.Connection
}

// Close ends the stream and its connection to the agent.
func (c *podConn) Close() error { return c.connection.Close() }

// LocalAddr is nobody's.
func (c *podConn) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr is nobody's.
func (c *podConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline does nothing.
func (c *podConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *podConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *podConn) SetWriteDeadline(time.Time) error { return nil }
