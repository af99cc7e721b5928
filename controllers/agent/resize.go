// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// deferredMost is how long a deferred resize waits for a look when nobody gives anything back.
const deferredMost = time.Minute

// allocate decides what of its wishes the pod is given, and returns it as it is to be run: with what is allocated.
func (r *Reconciler) allocate(ctx context.Context, rec *record, pod *pcorev1.Pod, wait *waiter) (*pcorev1.Pod, error) {
	state := &rec.mem.resize
	if podstate.IsTerminal(pod.Status.Phase) {
		r.giveBack(ctx, rec)
		return pod, nil
	}
	if state.allocated != nil && state.generation == pod.Generation && state.pending.reason == "" {
		return pod, nil
	}
	if state.allocated == nil {
		given := allocationFromStatus(pod)
		why, err := r.admit(ctx, rec, given.apply(pod))
		if err != nil {
			return nil, err
		}
		rec.mu.Lock()
		state.allocated, state.due, rec.mem.unfit = given, true, why
		rec.mu.Unlock()
	}
	if rec.mem.unfit.reason != "" {
		return pod, nil
	}
	wanted, ending := allocationOf(&pod.Spec), pod.DeletionTimestamp != nil
	why := podFailure{}
	switch {
	case wanted.equal(state.allocated) || ending:
	default:
		want := holdingOf(pod)
		if why = judgeResize(want, rec.node.ledger.others(rec.uid), rec.node.Allocatable); why.reason == "" {
			if err := r.accept(ctx, rec, wanted); err != nil {
				return nil, err
			}
			for _, key := range rec.node.ledger.hold(rec.uid, want) {
				r.wake(key)
			}
		}
		if why.reason == corev1.PodReasonDeferred {
			rec.node.ledger.wait(rec.uid, rec.key)
			wait.until(r.options.Now().Add(deferredMost))
		}
	}
	rec.mu.Lock()
	state.pending, state.generation = why, pod.Generation
	rec.mu.Unlock()
	if wanted.equal(state.allocated) {
		return pod, nil
	}
	return state.allocated.apply(pod), nil
}

// accept allocates; what runs has what was allocated before until it is actuated.
func (r *Reconciler) accept(ctx context.Context, rec *record, wanted *allocation) error {
	seen, err := rec.node.observe(ctx, rec.uid)
	if err != nil {
		return err
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	state := &rec.mem.resize
	for _, c := range seen.containers {
		if !c.running() || sameCompute(state.allocated.containers[c.name()], wanted.containers[c.name()]) {
			continue
		}
		if _, known := state.actuated[c.Id]; !known {
			set(&state.actuated, c.Id, state.allocated.containers[c.name()])
		}
	}
	state.allocated, state.due, state.failed = wanted, true, startFailure{}
	return nil
}

// giveBack notes that a pod holds nothing any more, and has those looked at that waited for it.
func (r *Reconciler) giveBack(ctx context.Context, rec *record) {
	for _, key := range rec.node.ledger.release(rec.uid) {
		r.wake(key)
	}
	if rec.node.CgroupRoot == "" {
		return
	}
	if err := rec.node.classShares(); err != nil {
		logf.FromContext(ctx).V(1).Info("Setting the CPU shares of the QoS classes failed", "reason", err.Error())
	}
}

// resize brings what is allocated to the pod's cgroup and its running containers. What fails is remembered for the status, and tried again.
func (r *Reconciler) resize(ctx context.Context, rec *record, pod *pcorev1.Pod, step *resizeStep) {
	err := r.actuate(ctx, rec, pod, step)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	state := &rec.mem.resize
	if err == nil {
		state.failed = startFailure{}
		state.due = false
		for id := range state.actuated {
			state.due = state.due || !state.restarting[id] // one that is to be restarted still runs
		}
		return
	}
	delay := resizeRetry(state.failed)
	state.failed = startFailure{reason: corev1.PodReasonError, message: message(err), retryAt: r.options.Now().Add(delay), delay: delay}
	logf.FromContext(ctx).V(1).Info("Resizing failed", "pod", klog.KObj(pod), "reason", err.Error())
}

func (r *Reconciler) actuate(ctx context.Context, rec *record, pod *pcorev1.Pod, step *resizeStep) error {
	if len(step.containers) == 0 {
		return rec.node.limit(pod)
	}
	limits := podLimits(pod, rec.node.Capacity)
	if err := rec.node.memoryFits(pod, limits, step); err != nil {
		return err
	}
	// A cgroup never has more than the one above it: while both change the pod has the more generous of the two.
	loose := limits
	loose.Memory, loose.CPUQuota = cgroup.Unlimited, cgroup.Unlimited
	if rec.node.CgroupRoot != "" {
		if err := cgroup.Apply(cgroupParent(pod, &rec.node.Node), loose); err != nil {
			return fmt.Errorf("widening the pod's cgroup: %w", err)
		}
	}
	for _, c := range step.containers {
		want := containerResources(pod, c.container, nil)
		if want.CpuQuota == 0 {
			want.CpuQuota = cgroup.Unlimited
		}
		if err := rec.node.Runtime.UpdateContainerResources(ctx, c.id, want); err != nil {
			return fmt.Errorf("resizing container %s: %w", c.container.Name, err)
		}
		rec.mu.Lock()
		delete(rec.mem.resize.actuated, c.id)
		rec.mu.Unlock()
	}
	return rec.node.limit(pod)
}

// memoryFits refuses limits below what is used: version 2 would kill for it. Upstream's words.
func (n *nodeState) memoryFits(pod *pcorev1.Pod, limits cgroup.Limits, step *resizeStep) error {
	if n.CgroupRoot == "" {
		return nil
	}
	parent := cgroupParent(pod, &n.Node)
	var problems []error
	less := func(c resizeContainer) bool {
		was, is := c.have.Limits.Memory().Value(), c.container.Resources.Limits.Memory().Value()
		return is > 0 && (was == 0 || is < was)
	}
	decreases := false
	for _, c := range step.containers {
		if !less(c) {
			continue
		}
		decreases = true
		most := c.container.Resources.Limits.Memory().Value()
		used, err := cgroup.ReadMemory(parent + "/" + c.id)
		if err == nil && used.Usage >= most {
			problems = append(problems, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", c.container.Name, most, used.Usage))
		}
	}
	if decreases && limits.Memory > 0 {
		if used, err := cgroup.ReadMemory(parent); err == nil && used.Usage >= limits.Memory {
			problems = append(problems, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limits.Memory, used.Usage))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("cannot decrease memory limits: %w", errors.Join(problems...))
	}
	return nil
}
