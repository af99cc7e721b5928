// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// What the server itself needs of the API server.
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// Runtime is what the server asks of the container runtime.
type Runtime interface {
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error)
	Exec(ctx context.Context, request *runtimeapi.ExecRequest) (url string, err error)
	Attach(ctx context.Context, request *runtimeapi.AttachRequest) (url string, err error)
	PortForward(ctx context.Context, request *runtimeapi.PortForwardRequest) (url string, err error)
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
	ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error)
	CheckpointContainer(ctx context.Context, id, location string, timeout time.Duration) error
}

// Gate tells who asks and whether they may; access.Gate does.
type Gate interface {
	Authenticate(r *http.Request) (*authenticationv1.UserInfo, error)
	Authorize(ctx context.Context, user *authenticationv1.UserInfo, attributes ...authorizationv1.ResourceAttributes) error
}

// Options of a Server. All are required unless they say otherwise.
type Options struct {
	// NodeName is the Node object's name.
	NodeName string
	// Pods reads the node's pods, from a cache.
	Pods client.Reader
	// Runtime runs them.
	Runtime Runtime
	// Gate lets in who may.
	Gate Gate
	// Metrics serves /metrics, the agent's own. Nil: none.
	Metrics http.Handler
	// CheckpointDir is where checkpoints go. Empty: none are made.
	CheckpointDir string
}

// Server answers for one node. It is safe for concurrent use.
type Server struct {
	Options
	listener net.Listener
	http     *http.Server
}

// New makes a server. Its Handler may be used without Listen and Start.
func New(o Options) *Server { return &Server{Options: o} }

// DefaultPort is where the server listens unless told otherwise: the kubelet's port and a hundred, so that both can be on
// one machine.
const DefaultPort = 10350

// Listen takes a port, so that the node can tell it before the server starts. Port 0 takes any free one.
func (s *Server) Listen(address string, config *tls.Config) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("the agent's server can't listen on %s; choose another address with --listen-address: %w", address, err)
	}
	s.listener = listener
	s.http = &http.Server{Handler: s.Handler(), TLSConfig: config, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second}
	return nil
}

// Port is the port that Listen took.
func (s *Server) Port() int32 { return int32(s.listener.Addr().(*net.TCPAddr).Port) }

// Start serves until the context ends, and then ends what is open.
func (s *Server) Start(ctx context.Context) error {
	// Handlers end with the agent, streams too.
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	s.http.ErrorLog = quiet(logf.FromContext(ctx).WithName("nodeserver"))
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the agent's address: %w", err)
	}
	return nil
}

// NeedLeaderElection says that every agent serves.
func (s *Server) NeedLeaderElection() bool { return false }

// The subresources of nodes that give a right; the kubelet's, in Pinnace's group.
const (
	rightProxy      = "proxy"
	rightMetrics    = "metrics"
	rightStats      = "stats"
	rightPods       = "pods"
	rightCheckpoint = "checkpoint"
)

// Handler answers all paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	// Whether the server lives is no secret.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })

	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", s.guard("get", s.serveLogs, rightProxy))
	for path, serve := range map[string]http.HandlerFunc{
		"/exec/{namespace}/{pod}/{container}":         s.serveExec,
		"/exec/{namespace}/{pod}/{uid}/{container}":   s.serveExec,
		"/attach/{namespace}/{pod}/{container}":       s.serveAttach,
		"/attach/{namespace}/{pod}/{uid}/{container}": s.serveAttach,
		"/portForward/{namespace}/{pod}":              s.servePortForward,
		"/portForward/{namespace}/{pod}/{uid}":        s.servePortForward,
	} {
		// A WebSocket begins with GET, and yet whoever may only look mustn't run anything.
		mux.Handle("GET "+path, s.guard("create", serve, rightProxy))
		mux.Handle("POST "+path, s.guard("create", serve, rightProxy))
	}
	mux.Handle("GET /pods", s.guard("get", s.servePods, rightPods, rightProxy))
	mux.Handle("GET /stats/summary", s.guard("get", s.serveSummary, rightStats))
	mux.Handle("GET /metrics/resource", s.guard("get", s.serveResourceMetrics, rightMetrics))
	mux.Handle("GET /metrics/cadvisor", s.guard("get", s.serveContainerMetrics, rightMetrics))
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.guard("get", s.Metrics.ServeHTTP, rightMetrics))
	}
	mux.Handle("POST /checkpoint/{namespace}/{pod}/{container}", s.guard("create", s.serveCheckpoint, rightCheckpoint))
	// What isn't there is no stranger's to know.
	mux.Handle("/", s.guard("get", http.NotFound, rightProxy))
	return mux
}

// guard lets a request through to a handler when its sender may do the verb on one of the node's subresources.
func (s *Server) guard(verb string, serve http.HandlerFunc, subresources ...string) http.Handler {
	rights := make([]authorizationv1.ResourceAttributes, len(subresources))
	for i, subresource := range subresources {
		rights[i] = authorizationv1.ResourceAttributes{
			Verb: verb, Group: pcorev1.GroupVersion.Group, Version: pcorev1.GroupVersion.Version,
			Resource: "nodes", Subresource: subresource, Name: s.NodeName,
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := s.Gate.Authenticate(r)
		if err == nil {
			err = s.Gate.Authorize(r.Context(), user, rights...)
		}
		if err != nil {
			access.WriteError(w, err)
			return
		}
		// The credential has done its work: nothing behind this server is to see it.
		r.Header.Del("Authorization")
		serve(w, r)
	})
}
