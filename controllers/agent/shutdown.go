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
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// goingDown says what happens to the pods of a node that goes down.
type goingDown int32

const (
	// downForGood: pods end as failed, and no new one is taken. The zero value: it stays up.
	downForGood goingDown = iota + 1
	// downForNow: what runs is stopped, and the same pods run again when the agent is back.
	downForNow
)

const (
	// downGraceMost is what containers get at most when the node goes down for now.
	downGraceMost = 10 * time.Second
	// restEvery is how often to look whether all have ended.
	restEvery = 50 * time.Millisecond

	// What upstream says of a pod that ends with its node.
	reasonTerminated  = "Terminated"
	messageTerminated = "Pod was terminated in response to imminent node shutdown."
	messageRejected   = "Pod was rejected as the node is shutting down."
	messageNodeDown   = "The pod's node is down; its containers run again when the node does."
)

// ShutdownOptions of a node that goes down for good.
type ShutdownOptions struct {
	// Grace is how long all pods get together, at most. Critical is the last part of it, which is for pods from the priority of
	// system-cluster-critical on alone; they are stopped after all others.
	Grace, Critical time.Duration
}

// ShutDown ends all pods as upstream's graceful node shutdown does: they fail with the reason Terminated, in order of their priority, and
// meanwhile no pod is taken. It returns when all have ended and that is told, or when the time is over.
func (r *Reconciler) ShutDown(ctx context.Context, o ShutdownOptions) error {
	pods, err := r.goDown(ctx, downForGood)
	if err != nil {
		return err
	}
	var others, critical []*record
	periods := map[*record]time.Duration{}
	for _, pod := range pods {
		rec := r.records.get(r.node(pod.Spec.NodeName), pod.UID, client.ObjectKeyFromObject(pod), r.options.Now())
		period, group := o.Grace-o.Critical, &others
		if podstate.Priority(&pod.Spec.PodSpec) >= podstate.PriorityClusterCritical {
			period, group = o.Critical, &critical
		}
		*group = append(*group, rec)
		periods[rec] = min(period, gracePeriod(pod))
	}
	for _, group := range []struct {
		records []*record
		most    time.Duration
	}{{others, o.Grace - o.Critical}, {critical, o.Critical}} {
		for _, rec := range group.records {
			grace := periods[rec]
			rec.mu.Lock()
			if rec.mem.fail == nil {
				rec.mem.fail = &podFailure{reason: reasonTerminated, message: messageTerminated, grace: &grace, disruption: true}
			}
			rec.mu.Unlock()
			r.wake(rec.key)
		}
		err = errors.Join(err, awaitRest(ctx, group.records, group.most))
	}
	return err
}

// GoDown stops what runs, of each pod in order, and tells that it runs no more. The pods stay: an agent that starts again runs them.
func (r *Reconciler) GoDown(ctx context.Context, most time.Duration) error {
	pods, err := r.goDown(ctx, downForNow)
	if err != nil {
		return err
	}
	var all []*record
	for _, pod := range pods {
		rec := r.records.get(r.node(pod.Spec.NodeName), pod.UID, client.ObjectKeyFromObject(pod), r.options.Now())
		all = append(all, rec)
		r.wake(rec.key)
	}
	return awaitRest(ctx, all, most)
}

// goDown marks the nodes and returns their pods that haven't ended.
func (r *Reconciler) goDown(ctx context.Context, how goingDown) ([]*pcorev1.Pod, error) {
	r.mu.Lock()
	for _, n := range r.nodes {
		n.down.Store(int32(how))
	}
	r.mu.Unlock()
	var list pcorev1.PodList
	if err := r.client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing the pods of a node that goes down: %w", err)
	}
	var out []*pcorev1.Pod
	for i := range list.Items {
		if pod := &list.Items[i]; !isMirror(pod) && r.node(pod.Spec.NodeName) != nil && !podstate.IsTerminal(pod.Status.Phase) {
			out = append(out, pod)
		}
	}
	return append(out, r.staticOf()...), nil
}

// awaitRest waits until nothing runs of these pods and their status says so.
func awaitRest(ctx context.Context, records []*record, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most+time.Second) // The second is for the kill at the end of the grace, and to tell of it.
	defer cancel()
	for _, rec := range records {
		for !rec.atRest.Load() {
			sleep(ctx, restEvery)
			if ctx.Err() != nil {
				logf.FromContext(ctx).Info("A pod did not end in time", "pod", klog.KRef(rec.key.Namespace, rec.key.Name))
				return fmt.Errorf("pod %s did not end in time", rec.key)
			}
		}
	}
	return nil
}

// tellDown lays over a status that its node is down: what ended because of that hasn't ended for good.
func tellDown(out *pcorev1.PodStatus, old *pcorev1.PodStatus) {
	if podstate.IsTerminal(old.Phase) {
		return
	}
	if podstate.IsTerminal(out.Phase) || out.Phase == "" {
		if out.Phase = old.Phase; out.Phase == "" {
			out.Phase = corev1.PodPending
		}
	}
	out.Reason, out.Message = podstate.ReasonNodeDown, messageNodeDown
}
