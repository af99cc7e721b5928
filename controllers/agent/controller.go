// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// Least privilege: the agent's role, bound once per node; docs/adr/0031 says what narrows it further on the server.
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods/status,verbs=update
// Of a service account the names of its pull secrets are read; it holds nothing secret.
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get
// What pods refer to (ConfigMaps, Secrets, tokens) is allowed by roles of each node: controllers/node/access.
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// maxRounds bounds plan and apply within one reconcile; a straight start takes three.
const maxRounds = 20

// Options of a Reconciler.
type Options struct {
	// References reads ConfigMaps and Secrets. It should read from the API server, not from a cache that would hold all of
	// them. Required.
	References client.Reader
	// Tokens requests service account tokens. Nil: volumes with tokens fail with a clear message.
	Tokens TokenFunc
	// Services lists the services of a namespace, whose addresses containers find in their environment. Nil: none.
	Services func(ctx context.Context, namespace string) ([]pcorev1.Service, error)
	// Events records what no condition says. Nil: none.
	Events events.EventRecorder
	// Window is how long a status that isn't Ready yet is held back, so that a quick start is one write; 0: 700 ms.
	Window time.Duration
	// Refresh is how often files from references are brought up to date; 0: 60 s.
	Refresh time.Duration
	// Concurrency is how many pods are worked on at once; 0: 32. Those that wait for a place among the starts count.
	Concurrency int
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Reconciler runs the pods of its nodes: one on a real machine, or many simulated ones in one process.
type Reconciler struct {
	client  client.Client
	options Options
	records *records
	refs    *references

	mu    sync.Mutex
	nodes map[string]*nodeState
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	// base is the context of jobs and of the nodes' watches; it ends with the manager.
	base context.Context
	jobs sync.WaitGroup
	// staticKeys are the names of static pods, of those that were, and of their mirrors; staticQueue holds those to look at.
	staticKeys  map[types.NamespacedName]bool
	staticQueue workqueue.TypedRateLimitingInterface[reconcile.Request]
	// started says that the cache is there and the nodes are watched.
	started atomic.Bool
}

// NewReconciler makes a Reconciler without nodes. The client reads pods from a cache, which on a real node is narrowed by the
// field selector spec.nodeName, and writes to the API server.
func NewReconciler(c client.Client, options Options) *Reconciler {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Window == 0 {
		options.Window = 700 * time.Millisecond
	}
	if options.Refresh == 0 {
		options.Refresh = 60 * time.Second
	}
	if options.Concurrency == 0 {
		options.Concurrency = 32
	}
	return &Reconciler{
		client: c, options: options, records: newRecords(), refs: newReferences(options.References),
		nodes: map[string]*nodeState{}, base: context.Background(), staticQueue: newStaticQueue(),
	}
}

// Reconcile brings one pod, and whatever else of its name still runs, one step or many closer to what is wanted.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if r.isStaticRequest(req) {
		r.wake(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	pod := &pcorev1.Pod{}
	if err := r.client.Get(ctx, req.NamespacedName, pod); err != nil {
		if !apierrors.IsNotFound(err) {
			return ctrl.Result{}, fmt.Errorf("reading the pod: %w", err)
		}
		pod = nil
	}
	var wait waiter
	var failures []error
	for _, rec := range r.records.named(req.NamespacedName) {
		if pod != nil && rec.uid == pod.UID {
			continue
		}
		failures = append(failures, r.endOrphan(ctx, rec, &wait))
	}
	if pod != nil {
		if node := r.node(pod.Spec.NodeName); node != nil {
			failures = append(failures, r.run(ctx, node, pod, &wait))
		}
	}
	return wait.result(r.options.Now()), errors.Join(failures...)
}

// run is gather, plan, apply, report for a pod that the API server has.
func (r *Reconciler) run(ctx context.Context, node *nodeState, pod *pcorev1.Pod, wait *waiter) error {
	rec := r.records.get(node, pod.UID, client.ObjectKeyFromObject(pod), r.options.Now())
	pod = rec.newest(pod)
	if rec.released {
		return nil // Ours is done; the object waits for others.
	}
	pod, err := r.allocate(ctx, rec, pod, wait)
	if err != nil {
		return err
	}
	seen, p, err := r.converge(ctx, rec, pod)
	if err != nil {
		return err
	}
	wait.until(p.wake)
	if pod.DeletionTimestamp != nil && p.gone {
		err := r.finish(ctx, rec, pod)
		rec.atRest.Store(err == nil)
		return err
	}
	if p.gone && evicted(pod) && !rec.emptied {
		if err := r.cleanUp(ctx, rec, pod); err != nil {
			return err
		}
		rec.emptied = true
	}
	if !p.ending {
		if err := r.refresh(ctx, rec, pod, seen, wait); err != nil {
			return err
		}
	}
	err = r.report(ctx, rec, pod, seen, p, wait)
	rec.atRest.Store(err == nil && p.ending && p.gone)
	return err
}

// converge plans and applies until there is nothing to do now.
func (r *Reconciler) converge(ctx context.Context, rec *record, pod *pcorev1.Pod) (*observed, *plan, error) {
	defer rec.giveSlot()
	seen, err := rec.node.observe(ctx, rec.uid)
	for range maxRounds {
		if err != nil {
			return nil, nil, err
		}
		r.look(rec, pod, seen)
		now := r.options.Now()
		rec.mu.Lock()
		rec.mem.facts.down = goingDown(rec.node.down.Load())
		s := situation{pod: pod, seen: seen, mem: &rec.mem, now: now}
		p := makePlan(s)
		if p.ending && rec.mem.endingSince.IsZero() {
			rec.mem.endingSince = now
		}
		if p.fail != nil {
			rec.mem.fail = p.fail
		}
		if p.ending && len(p.removeSandboxes) > 0 {
			// What the containers came to is known now and not after.
			final := makeStatus(s, &p, rec.node.host(ctx))
			rec.final = &final
		}
		rec.mu.Unlock()
		if p.idle() {
			return seen, &p, nil
		}
		rec.made = made{}
		if err := r.apply(ctx, rec, pod, seen, &p); err != nil {
			return nil, nil, err
		}
		if p.onlyMakes() {
			seen, err = rec.node.observeMade(ctx, seen, rec.made)
		} else {
			seen, err = rec.node.observe(ctx, rec.uid)
		}
	}
	return nil, nil, fmt.Errorf("pod %s did not settle within %d rounds: trying again", rec.key, maxRounds)
}

// report writes the status when it changed, unless it may wait a little for more to come.
func (r *Reconciler) report(ctx context.Context, rec *record, pod *pcorev1.Pod, seen *observed, p *plan, wait *waiter) error {
	now := r.options.Now()
	rec.mu.Lock()
	s := situation{pod: pod, seen: seen, mem: &rec.mem, now: now}
	status := makeStatus(s, p, rec.node.host(ctx))
	hold := holdUntil(s, p, &status, rec.firstSeen, r.options.Window)
	rec.mu.Unlock()
	if sameStatus(&status, &pod.Status) {
		return nil
	}
	if !hold.IsZero() {
		wait.until(hold)
		return nil
	}
	return r.writeStatus(ctx, rec, pod, status)
}

func (r *Reconciler) writeStatus(ctx context.Context, rec *record, pod *pcorev1.Pod, status pcorev1.PodStatus) error {
	if podstate.IsTerminal(status.Phase) {
		r.giveBack(ctx, rec) // Before anybody hears of it and puts another pod into its place.
	}
	// The API server takes the status alone, so the rest isn't sent; the answer fills it in.
	changed := pcorev1.Pod{Status: status}
	changed.Namespace, changed.Name, changed.UID, changed.ResourceVersion = pod.Namespace, pod.Name, pod.UID, pod.ResourceVersion
	rec.beginWrite()
	err := r.client.Status().Update(ctx, &changed)
	written := &changed
	if err != nil {
		written = nil
	}
	if rec.endWrite(written) {
		r.wake(rec.key)
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // Our cache was behind; the watch brings what is new, and with it another look.
	case err != nil:
		return fmt.Errorf("writing the status: %w", err)
	}
	if evicted(&changed) {
		r.wake(rec.key) // Now that it is told, what the pod holds on disk is given back.
	}
	return nil
}

// finish cleans up after a deleted pod of which nothing runs any more, and lets its object go.
func (r *Reconciler) finish(ctx context.Context, rec *record, pod *pcorev1.Pod) error {
	if err := r.cleanUp(ctx, rec, pod); err != nil {
		return err
	}
	// Who else waits for the pod's end, such as a Job, wants to know how it ended.
	if others := len(pod.Finalizers) > 1; others && rec.final != nil && !rec.finished && !sameStatus(rec.final, &pod.Status) {
		if err := r.writeStatus(ctx, rec, pod, *rec.final); err != nil {
			return err
		}
		pod = rec.newest(pod)
	}
	rec.finished = true
	if slices.Contains(pod.Finalizers, Finalizer) {
		if err := r.removeFinalizer(ctx, rec, pod); err != nil {
			return fmt.Errorf("removing the finalizer: %w", err)
		}
	}
	rec.stopProbes()
	rec.released = true
	return nil
}

// removeFinalizer takes ours off with one patch, under the pod's known resource version. To add it is placement's, which does it in
// the write that binds; a pod without it is run all the same, and ended as an orphan.
func (r *Reconciler) removeFinalizer(ctx context.Context, rec *record, pod *pcorev1.Pod) error {
	var patch struct {
		Metadata struct {
			ResourceVersion string   `json:"resourceVersion"`
			Finalizers      []string `json:"finalizers"`
		} `json:"metadata"`
	}
	patch.Metadata.ResourceVersion = pod.ResourceVersion
	patch.Metadata.Finalizers = slices.DeleteFunc(slices.Clone(pod.Finalizers), func(f string) bool { return f == Finalizer })
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	// Written by hand: to compare two states of a pod costs as much as all else that the agent does for its end.
	changed := *pod
	err = r.client.Patch(ctx, &changed, client.RawPatch(types.MergePatchType, body))
	if apierrors.IsConflict(err) {
		rec.forgetWritten()
	}
	return client.IgnoreNotFound(err)
}

// waiter collects when to look again; the earliest wins.
type waiter struct{ at time.Time }

func (w *waiter) until(t time.Time) {
	if !t.IsZero() && (w.at.IsZero() || t.Before(w.at)) {
		w.at = t
	}
}

func (w *waiter) result(now time.Time) ctrl.Result {
	if w.at.IsZero() {
		return ctrl.Result{}
	}
	return ctrl.Result{RequeueAfter: max(w.at.Sub(now), time.Millisecond)}
}

func (r *Reconciler) node(name string) *nodeState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[name]
}

// wake puts a pod into the queue.
func (r *Reconciler) wake(key types.NamespacedName) {
	r.mu.Lock()
	queue := r.queue
	if r.staticKeys[key] {
		queue = r.staticQueue
	}
	r.mu.Unlock()
	if queue != nil {
		queue.Add(reconcile.Request{NamespacedName: key})
	}
}
