// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/placement"
)

// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=pods/status,verbs=update
// +kubebuilder:rbac:groups=core.pinnace.dev,resources=nodes,verbs=get;list;watch

const (
	// writers is how many writes are under way at a time.
	writers = 16
	// backlog is how many decided writes may wait; the loop waits when there are more.
	backlog = 4096
	// rouseDelay is how soon after a change parked pods are tried again; many changes share one try.
	rouseDelay = 50 * time.Millisecond
	// firstRetry and lastRetry bound the wait after a write that failed.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Reconciler places pods.
type Reconciler struct {
	client client.Client
	now    func() time.Time

	mu    sync.Mutex
	queue *queue
	// cluster is guarded by mu.
	cluster *placement.Cluster
	// promises are room for pods that are being created, by their names; counted is true once the cluster holds every bound pod.
	promises map[types.NamespacedName]*promise
	counted  bool
	// wake tells the loop that something waits. It holds one word at most.
	wake chan struct{}
	jobs chan job
	log  logr.Logger
}

// NewReconciler makes a Reconciler. Its reads come from the manager's informers.
func NewReconciler(c client.Client) *Reconciler {
	return &Reconciler{
		client: c, now: time.Now,
		queue: newQueue(), cluster: placement.NewCluster(), promises: map[types.NamespacedName]*promise{},
		wake: make(chan struct{}, 1), jobs: make(chan job, backlog), log: logr.Discard(),
	}
}

// SetupWithManager adds the loop to the manager. It runs only in the leader.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.log = mgr.GetLogger().WithName("placement")
	return mgr.Add(&runner{r, mgr})
}

// runner starts the loop once the manager leads.
type runner struct {
	*Reconciler
	mgr ctrl.Manager
}

// NeedLeaderElection is true: two loops would fight over the same room.
func (r *runner) NeedLeaderElection() bool { return true }

// Start listens to nodes and pods, waits until all that are there have been seen, and runs until ctx ends.
func (r *runner) Start(ctx context.Context) error {
	nodes, err := r.mgr.GetCache().GetInformer(ctx, &pcorev1.Node{})
	if err != nil {
		return fmt.Errorf("watching nodes: %w", err)
	}
	pods, err := r.mgr.GetCache().GetInformer(ctx, &pcorev1.Pod{})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	seenNodes, err := nodes.AddEventHandler(listener[*pcorev1.Node]{set: r.setNode, remove: r.removeNode})
	if err != nil {
		return fmt.Errorf("listening to nodes: %w", err)
	}
	seenPods, err := pods.AddEventHandler(listener[*pcorev1.Pod]{set: r.setPod, remove: r.removePod})
	if err != nil {
		return fmt.Errorf("listening to pods: %w", err)
	}
	defer func() { // a manager that stops leading must not leave listeners behind
		_ = nodes.RemoveEventHandler(seenNodes)
		_ = pods.RemoveEventHandler(seenPods)
	}()
	// Placing before every bound pod is counted would fill nodes twice.
	if !toolscache.WaitForCacheSync(ctx.Done(), seenNodes.HasSynced, seenPods.HasSynced) {
		return nil
	}
	r.setCounted(true)
	defer r.setCounted(false)
	return r.Run(ctx)
}

func (r *Reconciler) setCounted(counted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counted = counted
}

// Run places what waits, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range writers {
		wg.Go(func() { r.write(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		for _, j := range r.cycle() {
			select {
			case <-ctx.Done():
				return nil
			case r.jobs <- j:
			}
		}
	}
}

// cycle takes all that waits and decides about it. It returns the writes to make.
func (r *Reconciler) cycle() []job {
	r.mu.Lock()
	defer r.mu.Unlock()
	var jobs []job
	for _, h := range r.queue.heads() {
		j, ok := r.decide(h)
		if ok {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// decide chooses what to write about one pod. The caller holds mu.
func (r *Reconciler) decide(h *head) (job, bool) {
	switch {
	case h.pod.Spec.NodeName != "":
		r.queue.busy(h)
		return job{head: h, pod: h.pod, what: claim}, true
	case len(h.pod.Spec.SchedulingGates) > 0:
		r.queue.park(h)
		return r.explain(h, gatedReason, gatedMessage)
	}
	d := r.cluster.Place(h.request)
	if d.Node == "" {
		r.queue.park(h)
		return r.explain(h, unschedulableReason, d.Message())
	}
	r.cluster.Assume(h.request, d.Node)
	r.queue.busy(h)
	return job{head: h, pod: h.pod, what: bind, node: d.Node}, true
}

// explain is the write that says why a pod waits, unless its condition says so already.
func (r *Reconciler) explain(h *head, reason, message string) (job, bool) {
	status, changed := waitingStatus(h.pod, reason, message, r.now())
	if !changed || h.said == message {
		return job{}, false
	}
	h.said = message
	return job{head: h, pod: h.pod, what: explain, status: status}, true
}

// nudge wakes the loop.
func (r *Reconciler) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// rouse lets parked pods be tried again soon. The caller holds mu.
func (r *Reconciler) rouse() {
	if r.queue.rousing || len(r.queue.parked) == 0 {
		return
	}
	r.queue.rousing = true
	time.AfterFunc(rouseDelay, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.queue.rousing = false
		r.queue.rouse()
		r.nudge()
	})
}
