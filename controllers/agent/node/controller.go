// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes/status,verbs=update
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update,namespace=pinnace-node-lease

// Runtime is what a node's status needs of its runtime.
type Runtime interface {
	Version(ctx context.Context) (*runtimeapi.VersionResponse, error)
	Status(ctx context.Context) (*runtimeapi.RuntimeStatus, error)
}

// Node is a node to be kept.
type Node struct {
	// Name of the Node object, the value of spec.nodeName.
	Name string
	// Labels beside those that are always there: kubernetes.io/hostname, arch and os.
	Labels map[string]string
	// Annotations of the Node object that the agent keeps.
	Annotations map[string]string
	// ServerPort is where the agent's server answers, for status.daemonEndpoints; 0: it has none.
	ServerPort int32
	// Addresses as in status.addresses.
	Addresses []corev1.NodeAddress
	// Capacity of the machine; Reserved is what pods don't get of it.
	Capacity, Reserved corev1.ResourceList
	// Info as in status.nodeInfo; the runtime's version is filled in.
	Info corev1.NodeSystemInfo
	// Runtime tells whether the node is ready.
	Runtime Runtime
	// Pressure tells what the machine lacks; nil: nothing ever.
	Pressure func() (Pressure, error)
	// Images returns the node's images for its status; nil leaves what is there.
	Images func() []corev1.ContainerImage
	// OnPodCIDRs is told the node's networks once they are known, and again when they change. It is called again after an error.
	OnPodCIDRs func(ctx context.Context, cidrs []string) error
}

// Pressure says what a machine lacks.
type Pressure struct{ Memory, Disk, PIDs bool }

// Options of a Reconciler. The zero value is usable.
type Options struct {
	// LeaseEvery is how often a lease is renewed; 0: 10 s. LeaseDuration is for how long it holds; 0: 40 s.
	LeaseEvery, LeaseDuration time.Duration
	// LookEvery is how often runtime and machine are looked at; 0: 10 s. While a node isn't ready it is twice a second.
	LookEvery time.Duration
	// WriteEvery is how often a status is written that hasn't changed; 0: 5 min.
	WriteEvery time.Duration
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// lookSoon is how often a node is looked at that isn't ready.
const lookSoon = 500 * time.Millisecond

// Reconciler keeps Node objects and leases.
type Reconciler struct {
	client client.Client
	// reader reads leases from the API server: no cache of them is worth its memory.
	reader  client.Reader
	options Options

	mu    sync.Mutex
	nodes map[string]*state
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	lease workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// state is a node with what is kept of it.
type state struct {
	Node
	// down says that the node goes down. The Reconciler's lock guards it.
	down bool
	// toldCIDRs are the networks that OnPodCIDRs has taken.
	toldCIDRs string
	lease     leaseState
}

// NewReconciler makes a Reconciler without nodes. The client reads Node objects from a cache, which on a real node is narrowed to
// its own; the reader reads from the API server.
func NewReconciler(c client.Client, reader client.Reader, options Options) *Reconciler {
	orElse := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	orElse(&options.LeaseEvery, 10*time.Second)
	orElse(&options.LeaseDuration, 40*time.Second)
	orElse(&options.LookEvery, 10*time.Second)
	orElse(&options.WriteEvery, 5*time.Minute)
	if options.Now == nil {
		options.Now = time.Now
	}
	return &Reconciler{client: c, reader: reader, options: options, nodes: map[string]*state{}}
}

// AddNode gives the Reconciler a node to keep, before or after the manager has started.
func (r *Reconciler) AddNode(n Node) error {
	if n.Name == "" || n.Runtime == nil {
		return fmt.Errorf("a node needs a name and a runtime")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nodes[n.Name] != nil {
		return fmt.Errorf("node %s is there already", n.Name)
	}
	r.nodes[n.Name] = &state{Node: n}
	for _, queue := range []workqueue.TypedRateLimitingInterface[reconcile.Request]{r.queue, r.lease} {
		if queue != nil {
			queue.Add(request(n.Name))
		}
	}
	return nil
}

// SetupWithManager registers the controllers of Node objects and of leases.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return r.find(o.GetName()) != nil })
	err := builder.ControllerManagedBy(mgr).
		Named("agent-node").
		For(&pcorev1.Node{}, builder.WithPredicates(ours)).
		WatchesRawSource(r.fill(&r.queue)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("registering the controller of nodes: %w", err)
	}
	lease, err := controller.NewTyped("agent-lease", mgr, controller.TypedOptions[reconcile.Request]{
		Reconciler: reconcile.Func(r.renew), MaxConcurrentReconciles: 4,
	})
	if err != nil {
		return fmt.Errorf("registering the renewal of leases: %w", err)
	}
	if err := lease.Watch(r.fill(&r.lease)); err != nil {
		return fmt.Errorf("starting the renewal of leases: %w", err)
	}
	return nil
}

// fill is a source of all nodes that are there at the start, and keeps the queue for those that come later.
func (r *Reconciler) fill(keep *workqueue.TypedRateLimitingInterface[reconcile.Request]) source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		*keep = queue
		for name := range r.nodes {
			queue.Add(request(name))
		}
		return nil
	})
}

func (r *Reconciler) find(name string) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[name]
}

// Reconcile registers a node that isn't there and brings its status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	n := r.find(req.Name)
	if n == nil {
		return reconcile.Result{}, nil
	}
	object := &pcorev1.Node{}
	err := r.client.Get(ctx, types.NamespacedName{Name: n.Name}, object)
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{RequeueAfter: lookSoon}, r.register(ctx, n)
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("reading the node: %w", err)
	}
	if err := r.label(ctx, n, object); err != nil {
		return reconcile.Result{}, err
	}
	if err := n.tell(ctx, object.Spec.PodCIDRs); err != nil {
		return reconcile.Result{}, err
	}
	now := r.options.Now()
	f := n.look(ctx)
	r.mu.Lock()
	f.down = n.down
	r.mu.Unlock()
	status := makeStatus(object, f, now)
	again := r.options.LookEvery
	if !isReady(&status) {
		again = lookSoon
	}
	if sameStatus(&status, &object.Status) && now.Sub(lastHeartbeat(&object.Status)) < r.options.WriteEvery {
		return reconcile.Result{RequeueAfter: again}, nil
	}
	changed := *object
	changed.Status = status
	if err := r.client.Status().Update(ctx, &changed); err != nil && !apierrors.IsConflict(err) {
		return reconcile.Result{}, fmt.Errorf("writing the node's status: %w", err)
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// register makes the Node object, with the taint that upstream's API server gives every new node; lifecycle takes it off once
// the node is ready.
func (r *Reconciler) register(ctx context.Context, n *state) error {
	object := &pcorev1.Node{}
	object.Name = n.Name
	object.Labels = n.labels()
	object.Annotations = maps.Clone(n.Annotations)
	object.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}
	if err := r.client.Create(ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("registering the node: %w", err)
	}
	return nil
}

// labels that describe the machine.
func (n *state) labels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: n.Name, corev1.LabelArchStable: n.Info.Architecture, corev1.LabelOSStable: n.Info.OperatingSystem,
	}
	maps.Copy(labels, n.Labels)
	return labels
}

// label adds labels and annotations that are missing; it takes away none.
func (r *Reconciler) label(ctx context.Context, n *state, object *pcorev1.Node) error {
	missing := false
	for key, value := range n.labels() {
		missing = missing || object.Labels[key] != value
	}
	for key, value := range n.Annotations {
		missing = missing || object.Annotations[key] != value
	}
	if !missing {
		return nil
	}
	changed := object.DeepCopy()
	if changed.Labels == nil {
		changed.Labels = map[string]string{}
	}
	maps.Copy(changed.Labels, n.labels())
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	maps.Copy(changed.Annotations, n.Annotations)
	if err := r.client.Patch(ctx, changed, client.MergeFrom(object)); err != nil {
		return fmt.Errorf("labelling the node: %w", err)
	}
	return nil
}

// tell hands the node's networks on when they are new.
func (n *state) tell(ctx context.Context, cidrs []string) error {
	text := fmt.Sprint(cidrs)
	if n.OnPodCIDRs == nil || len(cidrs) == 0 || text == n.toldCIDRs {
		return nil
	}
	if err := n.OnPodCIDRs(ctx, cidrs); err != nil {
		return fmt.Errorf("setting up the network of the node's pods: %w", err)
	}
	n.toldCIDRs = text
	return nil
}

// look gathers what the status says of runtime and machine.
func (n *state) look(ctx context.Context) facts {
	f := facts{node: &n.Node}
	version, err := n.Runtime.Version(ctx)
	if err == nil {
		f.runtimeVersion = version.RuntimeName + "://" + version.RuntimeVersion
		f.runtime, err = n.Runtime.Status(ctx)
	}
	f.runtimeError = err
	if n.Pressure != nil {
		f.pressure, f.pressureError = n.Pressure()
	}
	return f
}

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}
