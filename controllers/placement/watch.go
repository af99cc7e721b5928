// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"

	toolscache "k8s.io/client-go/tools/cache"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/placement"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// defaultName is the schedulerName that means this loop; so does an empty one. Upstream's default, so that manifests move over.
const defaultName = "default-scheduler"

// listener passes the events of one kind on.
type listener[T any] struct {
	set    func(T)
	remove func(T)
}

// OnAdd passes a new object on.
func (l listener[T]) OnAdd(obj any, _ bool) {
	if o, ok := obj.(T); ok {
		l.set(o)
	}
}

// OnUpdate passes a changed object on.
func (l listener[T]) OnUpdate(_, obj any) { l.OnAdd(obj, false) }

// OnDelete passes the end of an object on.
func (l listener[T]) OnDelete(obj any) {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if o, ok := obj.(T); ok {
		l.remove(o)
	}
}

func (r *Reconciler) setNode(n *pcorev1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cluster.SetNode(n) {
		r.rouse()
	}
}

func (r *Reconciler) removeNode(n *pcorev1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cluster.RemoveNode(n.Name)
	r.rouse() // the reasons that parked pods give count nodes
}

// setPod takes a new or changed pod in: a bound one counts on its node, one that waits is queued.
func (r *Reconciler) setPod(pod *pcorev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bound := pod.Spec.NodeName != ""
	switch {
	case workload.IsTerminal(pod) || (!bound && pod.DeletionTimestamp != nil):
		r.dismiss(pod)
	case bound:
		r.kept(pod)
		r.cluster.SetPod(requestOf(r.queue.find(pod.UID), pod), pod.Spec.NodeName)
		if pod.DeletionTimestamp != nil || slices.Contains(pod.Finalizers, NodeFinalizer) {
			r.queue.drop(pod.UID)
			return
		}
		r.await(pod) // bound by hand: the finalizer is missing
	case pod.Spec.SchedulerName == "" || pod.Spec.SchedulerName == defaultName:
		r.await(pod)
	}
}

func (r *Reconciler) removePod(pod *pcorev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dismiss(pod)
}

// dismiss forgets a pod, and lets others have its room. The caller holds mu.
func (r *Reconciler) dismiss(pod *pcorev1.Pod) {
	r.queue.drop(pod.UID)
	r.broken(pod)
	if r.cluster.RemovePod(pod.UID) {
		r.rouse()
	}
}

// await queues a pod that waits for a write of this loop. The caller holds mu.
func (r *Reconciler) await(pod *pcorev1.Pod) {
	if r.queue.set(pod) {
		r.nudge()
	}
}

// requestOf is what a pod asks for, not computed anew when it is known.
func requestOf(h *head, pod *pcorev1.Pod) *placement.Request {
	if h != nil && h.generation == pod.Generation {
		return h.request
	}
	return placement.NewRequest(pod)
}
