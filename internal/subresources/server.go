// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/access"
)

// What the server needs of the API server and of the agents. The front proxy's configuration is read by the role
// extension-apiserver-authentication-reader, which the API server makes itself.
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes/proxy,verbs=get;create

// Group and Version are the API's.
const (
	Group   = "subresources.pinnace.dev"
	Version = "v1"

	base = "/apis/" + Group + "/" + Version
)

// Gate tells who asks and whether they may; access.Gate does.
type Gate interface {
	Authenticate(r *http.Request) (*authenticationv1.UserInfo, error)
	Authorize(ctx context.Context, user *authenticationv1.UserInfo, attributes ...authorizationv1.ResourceAttributes) error
}

// Options of a Server. All are required.
type Options struct {
	// Objects reads pods, nodes and budgets, from a cache; Live reads them from the API server.
	Objects, Live client.Reader
	// Client evicts, and adds ephemeral containers.
	Client client.Client
	// Gate lets in who may.
	Gate Gate
	// Agents are where streams go.
	Agents *Agents
}

// Server answers for the aggregated API. It is safe for concurrent use.
type Server struct {
	Options
	listener net.Listener
	http     *http.Server
	usages   *usages
}

// New makes a server. Its Handler may be used without Listen and Start.
func New(o Options) *Server { return &Server{Options: o} }

// Listen takes a port, so that it can be registered before the server starts. Port 0 takes any free one.
func (s *Server) Listen(address string, config *tls.Config) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("the subresources can't be served on %s; choose another address with --subresources-address: %w", address, err)
	}
	s.listener = listener
	s.http = &http.Server{Handler: s.Handler(), TLSConfig: config, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second}
	return nil
}

// Port is the port that Listen took.
func (s *Server) Port() int32 { return int32(s.listener.Addr().(*net.TCPAddr).Port) }

// Start serves until the context ends, and then ends what is open.
func (s *Server) Start(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	s.http.ErrorLog = quiet(logf.FromContext(ctx).WithName("subresources"))
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the subresources: %w", err)
	}
	return nil
}

// NeedLeaderElection says that every manager serves: the API needs no leader.
func (s *Server) NeedLeaderElection() bool { return false }

// subresource is one that is served.
type subresource struct {
	name string
	// kind, group and version of what is sent or returned, for discovery.
	kind, group, version string
	// verbs by HTTP method: what a user must be allowed to do to the pod's subresource of core.pinnace.dev.
	verbs map[string]string
	// below says that the paths below it are its own.
	below bool
	serve func(*Server, http.ResponseWriter, *http.Request)
}

// stream verbs: a WebSocket begins with GET, and yet whoever may only look mustn't run anything.
var stream = map[string]string{http.MethodGet: "create", http.MethodPost: "create"}

// everyMethod are the verbs of what passes requests on, as upstream's.
var everyMethod = map[string]string{
	http.MethodGet: "get", http.MethodHead: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch",
	http.MethodDelete: "delete", http.MethodOptions: "get",
}

var subresources = []subresource{
	{name: "attach", kind: "PodAttachOptions", verbs: stream, serve: (*Server).serveAttach},
	{
		name: "ephemeralcontainers", kind: "Pod", group: pcorev1.GroupVersion.Group, version: pcorev1.GroupVersion.Version,
		verbs: map[string]string{http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch"}, serve: (*Server).serveEphemeralContainers,
	},
	{
		name: "eviction", kind: "Eviction", group: "policy", version: "v1",
		verbs: map[string]string{http.MethodPost: "create"}, serve: (*Server).serveEviction,
	},
	{name: "exec", kind: "PodExecOptions", verbs: stream, serve: (*Server).serveExec},
	{name: "log", kind: "Pod", verbs: map[string]string{http.MethodGet: "get"}, serve: (*Server).serveLog},
	{name: "portforward", kind: "PodPortForwardOptions", verbs: stream, serve: (*Server).servePortForward},
	{name: "proxy", kind: "PodProxyOptions", verbs: everyMethod, below: true, serve: (*Server).serveProxy},
	{
		name: "resize", kind: "Pod", group: pcorev1.GroupVersion.Group, version: pcorev1.GroupVersion.Version,
		verbs: map[string]string{http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch"}, serve: (*Server).serveResize,
	},
}

// Handler answers all paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	}
	for path, document := range discovery() {
		mux.Handle("GET "+path, s.known(func(w http.ResponseWriter, _ *http.Request) {
			access.WriteJSON(w, http.StatusOK, document)
		}))
	}
	for _, sub := range subresources {
		for method, verb := range sub.verbs {
			path := method + " " + base + "/namespaces/{namespace}/pods/{name}/" + sub.name
			mux.Handle(path, s.guard(verb, sub))
			if sub.below {
				mux.Handle(path+"/", s.guard(verb, sub))
			}
		}
	}
	s.handleMetrics(mux)
	mux.Handle("/", s.known(func(w http.ResponseWriter, r *http.Request) {
		access.WriteError(w, notFound("%s %s is not served", r.Method, r.URL.Path))
	}))
	return mux
}

// known lets everybody through whom the API server knows.
func (s *Server) known(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.Gate.Authenticate(r); err != nil {
			access.WriteError(w, err)
			return
		}
		serve(w, r)
	})
}

// guard lets a request through when its sender may do the verb on the pod's subresource.
func (s *Server) guard(verb string, sub subresource) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := s.Gate.Authenticate(r)
		if err == nil {
			err = s.Gate.Authorize(r.Context(), user, authorizationv1.ResourceAttributes{
				Verb: verb, Group: pcorev1.GroupVersion.Group, Version: pcorev1.GroupVersion.Version,
				Resource: "pods", Subresource: sub.name, Namespace: r.PathValue("namespace"), Name: r.PathValue("name"),
			})
		}
		if err != nil {
			access.WriteError(w, err)
			return
		}
		sub.serve(s, w, r)
	})
}

// notFound is the API's error 404 with a message of its own.
func notFound(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: fmt.Sprintf(format, args...),
	}}
}

// quiet keeps what net/http says of broken connections to those who want to see the flow.
func quiet(logger logr.Logger) *log.Logger { return log.New(lines{logger}, "", 0) }

type lines struct{ logger logr.Logger }

func (l lines) Write(p []byte) (int, error) {
	l.logger.V(2).Info("The HTTP server says", "text", strings.TrimSpace(string(p)))
	return len(p), nil
}
