// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/eviction"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// Eviction says when a node's pods have to go for the node's sake.
type Eviction struct {
	Thresholds []eviction.Threshold
	// Transition is how long a condition stays; GraceMost bounds what a pod gets to end when a soft threshold evicts it.
	Transition, GraceMost time.Duration
	// Every is how often the node is looked at; 0: 10 s, upstream's.
	Every time.Duration
	// Meter reads the node. Required.
	Meter Meter
	// Reclaim gives disk back that no pod needs, such as images that nobody uses. Nil: nothing can be given back.
	Reclaim func(ctx context.Context) error
}

// Meter reads what a node has left, and what its pods use.
type Meter interface {
	// Readings is asked at every look and should be cheap. What can't be read is left out.
	Readings(ctx context.Context) (eviction.Readings, eviction.Host, error)
	// Usages is asked only when something is lacking, or for pods with limits of local storage.
	Usages(ctx context.Context, pods []*pcorev1.Pod) (eviction.Usages, error)
}

// Times of the kubelet's eviction manager.
const (
	lookEvery = 10 * time.Second
	// lookAgain is how soon a node is looked at while an evicted pod still ends.
	lookAgain = 2 * time.Second
	// evictedMost is how long to wait for it before another one goes.
	evictedMost = 30 * time.Second
	// evictedGrace is what a pod gets that has to go at once.
	evictedGrace = time.Second
)

// evictor is the loop over one node.
type evictor struct {
	*Eviction
	node *nodeState

	mu         sync.Mutex
	conditions []corev1.NodeConditionType

	memory eviction.Memory
	// going are the pods that were evicted and may still run, with the time until which they are waited for.
	going map[types.UID]time.Time
}

// Conditions are those of a node that are true: MemoryPressure, DiskPressure, PIDPressure.
func (r *Reconciler) Conditions(node string) []corev1.NodeConditionType {
	n := r.node(node)
	if n == nil || n.evictor == nil {
		return nil
	}
	n.evictor.mu.Lock()
	defer n.evictor.mu.Unlock()
	return n.evictor.conditions
}

// guard looks at a node again and again until the context ends.
func (r *Reconciler) guard(ctx context.Context, e *evictor) {
	for ctx.Err() == nil {
		again, err := r.lookAtNode(ctx, e)
		if err != nil && ctx.Err() == nil {
			logf.FromContext(ctx).Error(err, "Looking at what the node lacks failed, trying again", "node", e.node.Name)
		}
		sleep(ctx, again)
	}
}

// lookAtNode evicts at most one pod for what the node lacks, and those that use more local storage than they may.
func (r *Reconciler) lookAtNode(ctx context.Context, e *evictor) (again time.Duration, err error) {
	every := e.Every
	if every == 0 {
		every = lookEvery
	}
	readings, host, err := e.Meter.Readings(ctx)
	if err != nil {
		return every, fmt.Errorf("reading what the node has left: %w", err)
	}
	now := r.options.Now()
	next, verdict := eviction.Look(e.memory, e.Thresholds, readings, e.Transition, now)
	e.memory = next
	e.mu.Lock()
	e.conditions = verdict.Conditions
	e.mu.Unlock()

	pods, err := r.activePods(ctx, e, now)
	if err != nil {
		return every, err
	}
	evicted, err := r.evictLocal(ctx, e, pods, host)
	if err != nil || evicted {
		return min(every, lookAgain), err
	}
	if len(verdict.Acute) == 0 {
		return every, nil
	}
	if len(e.going) > 0 {
		return min(every, lookAgain), nil // What it gives back counts first.
	}
	return r.evictForNode(ctx, e, pods, host, readings, verdict.Acute, min(every, lookAgain))
}

func (r *Reconciler) evictForNode(ctx context.Context, e *evictor, pods []*pcorev1.Pod, host eviction.Host, readings eviction.Readings,
	acute []eviction.Threshold, again time.Duration,
) (time.Duration, error) {
	log := logf.FromContext(ctx)
	first := acute[0]
	log.Info("The node lacks something, reclaiming it", "node", e.node.Name, "signal", first.Signal, "available", readings[first.Signal].Available)
	if first.Images(host) && e.Reclaim != nil {
		if err := e.Reclaim(ctx); err != nil {
			log.Error(err, "Giving back disk that no pod needs failed", "node", e.node.Name)
		}
		fresh, _, err := e.Meter.Readings(ctx)
		if err != nil {
			return again, fmt.Errorf("reading what the node has left: %w", err)
		}
		if readings = fresh; len(eviction.Met(e.Thresholds, readings, true)) == 0 {
			return again, nil
		}
	}
	usages, err := e.Meter.Usages(ctx, pods)
	if err != nil {
		return again, fmt.Errorf("reading what the pods use: %w", err)
	}
	natives := make([]*corev1.Pod, len(pods))
	for i, pod := range pods {
		natives[i] = native(pod)
	}
	for _, pod := range eviction.Rank(first.Signal, natives, usages, host) {
		if eviction.Critical(pod) {
			continue
		}
		grace := evictedGrace
		if !first.Hard() {
			grace = e.GraceMost
			if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
				grace = min(grace, time.Duration(*own)*time.Second)
			}
		}
		i := slices.IndexFunc(pods, func(p *pcorev1.Pod) bool { return p.UID == pod.UID })
		message := eviction.Message(first, pod, usages, acute, readings)
		r.evict(ctx, e, pods[i], podFailure{reason: podstate.ReasonEvicted, message: message, grace: &grace, disruption: true})
		return again, nil
	}
	log.Info("The node lacks something, and no pod may be evicted", "node", e.node.Name, "signal", first.Signal)
	return again, nil
}

// evictLocal evicts the pods that use more local storage than they may. Their usage is looked at only if there are such limits.
func (r *Reconciler) evictLocal(ctx context.Context, e *evictor, pods []*pcorev1.Pod, host eviction.Host) (evicted bool, err error) {
	var limited []*pcorev1.Pod
	for _, pod := range pods {
		if eviction.HasLocalLimits(native(pod)) {
			limited = append(limited, pod)
		}
	}
	if len(limited) == 0 {
		return false, nil
	}
	usages, err := e.Meter.Usages(ctx, limited)
	if err != nil {
		return false, fmt.Errorf("reading the local storage that pods use: %w", err)
	}
	for _, pod := range limited {
		usage, known := usages[pod.UID]
		if !known || eviction.Critical(native(pod)) {
			continue
		}
		if message := eviction.Local(native(pod), usage, host); message != "" {
			grace := evictedGrace
			r.evict(ctx, e, pod, podFailure{reason: podstate.ReasonEvicted, message: message, grace: &grace})
			evicted = true
		}
	}
	return evicted, nil
}

// evict has a pod end as failed. Its own look does the work, and its status tells.
func (r *Reconciler) evict(ctx context.Context, e *evictor, pod *pcorev1.Pod, why podFailure) {
	logf.FromContext(ctx).Info("Evicting a pod", "pod", klog.KObj(pod), "message", why.message)
	r.event(pod, corev1.EventTypeWarning, podstate.ReasonEvicted, "Evicting", why.message)
	rec := r.records.get(e.node, pod.UID, client.ObjectKeyFromObject(pod), r.options.Now())
	rec.mu.Lock()
	if rec.mem.fail == nil {
		rec.mem.fail = &why
	}
	rec.mu.Unlock()
	set(&e.going, pod.UID, r.options.Now().Add(evictedMost+*why.grace))
	r.wake(rec.key)
}

// activePods are the node's pods that may be evicted, from the cache and not to be changed; those that are going are left out.
func (r *Reconciler) activePods(ctx context.Context, e *evictor, now time.Time) ([]*pcorev1.Pod, error) {
	var list pcorev1.PodList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the node's pods: %w", err)
	}
	var out []*pcorev1.Pod
	runs := map[types.UID]bool{}
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Spec.NodeName != e.node.Name || podstate.IsTerminal(pod.Status.Phase) || isMirror(pod) {
			continue
		}
		runs[pod.UID] = true
		if _, going := e.going[pod.UID]; !going {
			out = append(out, pod)
		}
	}
	for uid, until := range e.going {
		if !runs[uid] || now.After(until) {
			delete(e.going, uid)
		}
	}
	return out, nil
}
