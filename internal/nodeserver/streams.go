// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/pinnace-dev/pinnace/internal/access"
)

// streams are the parts of a container's terminal that a request wants.
type streams struct{ stdin, stdout, stderr, tty bool }

// parseStreams reads the parameters that the API server sends to a kubelet. Of a terminal, stderr comes in stdout.
func parseStreams(query url.Values) (streams, error) {
	var s streams
	for name, to := range map[string]*bool{
		corev1.ExecStdinParam: &s.stdin, corev1.ExecStdoutParam: &s.stdout, corev1.ExecStderrParam: &s.stderr, corev1.ExecTTYParam: &s.tty,
	} {
		*to = query.Get(name) == "1" || query.Get(name) == "true"
	}
	if s.tty {
		s.stderr = false
	}
	if !s.stdin && !s.stdout && !s.stderr {
		return s, errors.New("you must specify at least 1 of stdin, stdout, stderr")
	}
	return s, nil
}

// unlogged keeps the streaming libraries from logging each stream that a client breaks off as an error.
func unlogged(r *http.Request) *http.Request {
	return r.WithContext(klog.NewContext(r.Context(), logr.Discard()))
}

func (s *Server) serveExec(w http.ResponseWriter, r *http.Request) {
	s.serveTerminal(w, r, func(id string, o streams) (string, error) {
		return s.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{
			ContainerId: id, Cmd: r.URL.Query()[corev1.ExecCommandParam],
			Stdin: o.stdin, Stdout: o.stdout, Stderr: o.stderr, Tty: o.tty,
		})
	})
}

func (s *Server) serveAttach(w http.ResponseWriter, r *http.Request) {
	s.serveTerminal(w, r, func(id string, o streams) (string, error) {
		return s.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{
			ContainerId: id, Stdin: o.stdin, Stdout: o.stdout, Stderr: o.stderr, Tty: o.tty,
		})
	})
}

// serveTerminal joins the client with a stream that the runtime prepares.
func (s *Server) serveTerminal(w http.ResponseWriter, r *http.Request, prepare func(id string, o streams) (string, error)) {
	o, err := parseStreams(r.URL.Query())
	if err != nil {
		access.WriteError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	pod, err := s.pod(r)
	if err != nil {
		access.WriteError(w, err)
		return
	}
	id, err := s.running(r.Context(), pod, r.PathValue("container"))
	if err != nil {
		access.WriteError(w, err)
		return
	}
	location, err := streamLocation(prepare(id, o))
	if err != nil {
		access.WriteError(w, err)
		return
	}
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		// Runtimes speak SPDY, and WebSocket only up to v4, in which the end of stdin can't be told.
		translator.NewStreamTranslatorHandler(location, nil, 0, translator.Options{
			Stdin: o.stdin, Stdout: o.stdout, Stderr: o.stderr, Tty: o.tty,
		}).ServeHTTP(w, unlogged(r))
		return
	}
	forward(location).ServeHTTP(w, unlogged(r))
}

func (s *Server) servePortForward(w http.ResponseWriter, r *http.Request) {
	location, err := s.portForward(r)
	if err != nil {
		access.WriteError(w, err)
		return
	}
	handler := forward(location)
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		handler = translator.NewTunnelingHandler(handler)
	}
	handler.ServeHTTP(w, unlogged(r))
}

func (s *Server) portForward(r *http.Request) (*url.URL, error) {
	pod, err := s.pod(r)
	if err != nil {
		return nil, err
	}
	var ports []int32
	for _, text := range r.URL.Query()["port"] {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the parameter port is %q: give a number from 1 to 65535", text))
		}
		ports = append(ports, int32(port))
	}
	list, err := s.Runtime.ListPodSandbox(r.Context(), &runtimeapi.PodSandboxFilter{
		LabelSelector: labelsOf(pod),
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	})
	if err != nil {
		return nil, fmt.Errorf("asking the container runtime for the sandbox of the pod %s: %w", pod.Name, err)
	}
	if len(list) == 0 {
		return nil, notFound("pod %q isn't running", pod.Name)
	}
	return streamLocation(s.Runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: list[0].Id, Port: ports}))
}

// streamLocation reads what a runtime answers to the wish for a stream.
func streamLocation(text string, err error) (*url.URL, error) {
	switch status.Code(err) {
	case codes.OK:
	case codes.NotFound:
		return nil, notFound("%s", status.Convert(err).Message())
	case codes.ResourceExhausted:
		return nil, apierrors.NewTooManyRequests(status.Convert(err).Message(), 1)
	default:
		return nil, fmt.Errorf("asking the container runtime for a stream: %w", err)
	}
	location, err := url.Parse(text)
	if err != nil || location.Host == "" {
		return nil, fmt.Errorf("the container runtime answers with %q in place of a stream's URL", text)
	}
	return location, nil
}

// forward joins client and runtime by their upgraded connections.
func forward(location *url.URL) http.Handler {
	return proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{})
}

// responder answers when the runtime's stream can't be reached, or the client asks for no upgrade.
type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) { access.WriteError(w, err) }
