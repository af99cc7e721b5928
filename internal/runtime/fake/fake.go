// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// Labels and annotations that the runtime reads.
const (
	// LabelUID is the pod's UID on sandboxes and containers, by which both are indexed.
	LabelUID = "io.kubernetes.pod.uid"
	// AnnotationKind on a container says what it is: init, sidecar, main or ephemeral.
	AnnotationKind = "pinnace.dev/container-kind"
	// AnnotationExitAfter on a pod ends its main containers after that time (a Go duration).
	AnnotationExitAfter = "sim.pinnace.dev/exit-after"
	// AnnotationExitCode on a pod is the code with which they end then; 0 when it isn't set.
	AnnotationExitCode = "sim.pinnace.dev/exit-code"
)

// Behaviour says whether a container ends by itself once it has started, when and how.
type Behaviour func(container *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (after time.Duration, code int32, ends bool)

// Options of a Runtime. The zero value is usable.
type Options struct {
	// PodCIDR is where addresses come from; 10.244.0.0/24 when it isn't set.
	PodCIDR netip.Prefix
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Behaviour of containers; ByAnnotation when nil.
	Behaviour Behaviour
	// SandboxLatency and StartLatency are how long RunPodSandbox and StartContainer take.
	SandboxLatency, StartLatency time.Duration
	// WithoutEvents makes Events answer Unimplemented, as containerd 1.6 does.
	WithoutEvents bool
}

// Runtime implements runtime.Service in memory. It is safe for concurrent use.
type Runtime struct {
	options Options

	mu         sync.Mutex
	next       uint64
	addresses  addresses
	sandboxes  map[string]*sandbox
	containers map[string]*container
	byUID      map[string]*pod
	images     map[string]imageFault
	exec       ExecFunc
	listeners  map[int]chan<- *runtimeapi.ContainerEventResponse
	backlog    []*runtimeapi.ContainerEventResponse
	wake       chan struct{}
	counts     map[string]int
	stopped    func(labels map[string]string)
}

var _ runtime.Service = (*Runtime)(nil)

// ExecFunc answers ExecSync.
type ExecFunc func(containerID string, command []string) (*runtimeapi.ExecSyncResponse, error)

type pod struct{ sandboxes, containers []string }

type sandbox struct {
	id      string
	meta    *runtimeapi.PodSandboxMetadata
	labels  map[string]string
	notes   map[string]string
	linux   *runtimeapi.LinuxPodSandboxConfig
	created int64
	ready   bool
	ip      netip.Addr
	handler string
	hostNet bool
}

type container struct {
	id, sandboxID             string
	meta                      *runtimeapi.ContainerMetadata
	image                     string
	labels, notes             map[string]string
	created, started, stopped int64
	state                     runtimeapi.ContainerState
	exitCode                  int32
	reason, message           string
	after                     time.Duration
	endCode                   int32
	ends                      bool
	resources                 *runtimeapi.LinuxContainerResources
	timer                     *time.Timer
}

// New makes an empty runtime.
func New(options Options) *Runtime {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Behaviour == nil {
		options.Behaviour = ByAnnotation
	}
	if !options.PodCIDR.IsValid() {
		options.PodCIDR = netip.MustParsePrefix("10.244.0.0/24")
	}
	return &Runtime{
		options:    options,
		addresses:  addresses{prefix: options.PodCIDR.Masked()},
		sandboxes:  map[string]*sandbox{},
		containers: map[string]*container{},
		byUID:      map[string]*pod{},
		images:     map[string]imageFault{},
		wake:       make(chan struct{}, 1),
		counts:     map[string]int{},
	}
}

// SetPodCIDR changes where the addresses of later sandboxes come from.
func (r *Runtime) SetPodCIDR(prefix netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if prefix.Masked() != r.addresses.prefix {
		r.addresses = addresses{prefix: prefix.Masked()}
	}
}

// Version names the fake.
func (r *Runtime) Version(context.Context) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}, nil
}

// Status is always ready.
func (r *Runtime) Status(context.Context) (*runtimeapi.RuntimeStatus, error) {
	return &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}, nil
}

// RunPodSandbox makes a ready sandbox with an address.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := pause(ctx, r.options.SandboxLatency); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts["RunPodSandbox"]++
	for _, id := range r.pod(config.GetLabels()).sandboxes {
		if m := r.sandboxes[id].meta; m.GetAttempt() == config.GetMetadata().GetAttempt() {
			return "", status.Errorf(codes.FailedPrecondition, "the sandbox name of pod %s attempt %d is reserved for %s", m.GetName(), m.GetAttempt(), id)
		}
	}
	s := &sandbox{
		id: r.id("s"), meta: config.GetMetadata(), labels: config.GetLabels(), notes: config.GetAnnotations(), linux: config.GetLinux(),
		created: r.options.Now().UnixNano(), ready: true, handler: handler,
		hostNet: config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
	}
	if !s.hostNet {
		ip, ok := r.addresses.take()
		if !ok {
			return "", status.Errorf(codes.Unknown, "failed to set up sandbox: no addresses left in %s", r.addresses.prefix)
		}
		s.ip = ip
	}
	r.sandboxes[s.id] = s
	p := r.pod(s.labels)
	p.sandboxes = append(p.sandboxes, s.id)
	r.emit(s.id, s.labels, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return s.id, nil
}

// StopPodSandbox kills what runs in the sandbox and gives its address back.
func (r *Runtime) StopPodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopSandbox(id)
	return nil
}

func (r *Runtime) stopSandbox(id string) {
	s := r.sandboxes[id]
	if s == nil || !s.ready {
		return
	}
	for _, c := range r.containersOf(s) {
		r.end(c, 137, "Error")
	}
	s.ready = false
	r.addresses.give(s.ip)
	r.emit(s.id, s.labels, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// RemovePodSandbox removes the sandbox with its containers.
func (r *Runtime) RemovePodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil
	}
	r.stopSandbox(id)
	for _, c := range r.containersOf(s) {
		r.forget(c)
	}
	delete(r.sandboxes, id)
	p := r.pod(s.labels)
	p.sandboxes = without(p.sandboxes, id)
	r.dropIfEmpty(s.labels)
	r.emit(s.id, s.labels, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// PodSandboxStatus returns one sandbox.
func (r *Runtime) PodSandboxStatus(_ context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, status.Errorf(codes.NotFound, "sandbox %s not found", id)
	}
	out := &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.meta, State: s.state(), CreatedAt: s.created, Labels: s.labels, Annotations: s.notes, RuntimeHandler: s.handler,
		Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
			Options: s.linux.GetSecurityContext().GetNamespaceOptions(),
		}},
	}
	if s.ip.IsValid() && s.ready {
		out.Network.Ip = s.ip.String()
	}
	return out, nil
}

// ListPodSandbox returns the sandboxes that match.
func (r *Runtime) ListPodSandbox(_ context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.PodSandbox
	r.eachSandbox(filter.GetLabelSelector()[LabelUID], func(s *sandbox) {
		if filter.GetId() != "" && filter.GetId() != s.id || filter.GetState() != nil && filter.GetState().State != s.state() ||
			!contains(s.labels, filter.GetLabelSelector()) {
			return
		}
		out = append(out, &runtimeapi.PodSandbox{
			Id: s.id, Metadata: s.meta, State: s.state(), CreatedAt: s.created, Labels: s.labels, Annotations: s.notes, RuntimeHandler: s.handler,
		})
	})
	return out, nil
}

func (s *sandbox) state() runtimeapi.PodSandboxState {
	if s.ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (r *Runtime) eachSandbox(uid string, visit func(*sandbox)) {
	if uid == "" {
		for _, s := range r.sandboxes {
			visit(s)
		}
		return
	}
	if p := r.byUID[uid]; p != nil {
		for _, id := range p.sandboxes {
			visit(r.sandboxes[id])
		}
	}
}

func (r *Runtime) pod(labels map[string]string) *pod {
	uid := labels[LabelUID]
	p := r.byUID[uid]
	if p == nil {
		p = &pod{}
		r.byUID[uid] = p
	}
	return p
}

func (r *Runtime) dropIfEmpty(labels map[string]string) {
	if p := r.byUID[labels[LabelUID]]; p != nil && len(p.sandboxes) == 0 && len(p.containers) == 0 {
		delete(r.byUID, labels[LabelUID])
	}
}

func (r *Runtime) id(prefix string) string {
	r.next++
	return fmt.Sprintf("%s%08d", prefix, r.next)
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func contains(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if labels[key] != value {
			return false
		}
	}
	return true
}

func without(list []string, id string) []string {
	for i := range list {
		if list[i] == id {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
