// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/placement"
)

// head is a pod that waits for this loop.
type head struct {
	// pod is the watch's object; it must not be changed.
	pod        *pcorev1.Pod
	generation int64
	request    *placement.Request
	// seq is when it came, for order.
	seq uint64
	// failures is how many writes failed in a row.
	failures int
	// said is the message that was last written to its condition, or is about to be.
	said string
}

// queue holds the pods that wait. A pod is in one of three places: active (to be tried), parked (fits nowhere, or gated, until something
// changes), or in flight (a write is under way or will be repeated). It is not safe for concurrent use.
type queue struct {
	active, parked, inFlight map[types.UID]*head
	seq                      uint64
	// rousing is true while a try of the parked pods is due.
	rousing bool
}

func newQueue() *queue {
	return &queue{active: map[types.UID]*head{}, parked: map[types.UID]*head{}, inFlight: map[types.UID]*head{}}
}

// find returns the head of a pod, nil when it isn't queued.
func (q *queue) find(uid types.UID) *head {
	for _, place := range []map[types.UID]*head{q.active, q.inFlight, q.parked} {
		if h, ok := place[uid]; ok {
			return h
		}
	}
	return nil
}

// set queues a pod, or brings the state of a queued one up to date. It returns whether there is something to try.
func (q *queue) set(pod *pcorev1.Pod) bool {
	h := q.find(pod.UID)
	if h == nil {
		q.seq++
		q.active[pod.UID] = &head{pod: pod, generation: pod.Generation, request: placement.NewRequest(pod), seq: q.seq}
		return true
	}
	changed := h.generation != pod.Generation
	h.pod = pod
	if changed {
		h.generation, h.request = pod.Generation, placement.NewRequest(pod)
	}
	if _, parked := q.parked[pod.UID]; parked && changed {
		// Something about the pod itself changed (a gate went, say), not only what was written to its status.
		delete(q.parked, pod.UID)
		q.active[pod.UID] = h
		return true
	}
	return false
}

// heads takes all active pods out, the most important first, then the oldest.
func (q *queue) heads() []*head {
	out := slices.SortedFunc(maps.Values(q.active), func(a, b *head) int {
		return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(a.seq, b.seq))
	})
	clear(q.active)
	return out
}

func priority(h *head) int32 {
	if h.pod.Spec.Priority == nil {
		return 0
	}
	return *h.pod.Spec.Priority
}

// before says whether a pod waits for room that comes before this one: it is as important, and older.
func (q *queue) before(pod *pcorev1.Pod) bool {
	mine := priority(&head{pod: pod})
	for _, place := range []map[types.UID]*head{q.active, q.parked} {
		for _, h := range place {
			if h.pod.Spec.NodeName == "" && len(h.pod.Spec.SchedulingGates) == 0 && priority(h) >= mine {
				return true
			}
		}
	}
	return false
}

func (q *queue) park(h *head) { q.parked[h.pod.UID] = h }
func (q *queue) busy(h *head) { q.inFlight[h.pod.UID] = h }

// drop forgets a pod.
func (q *queue) drop(uid types.UID) {
	delete(q.active, uid)
	delete(q.parked, uid)
	delete(q.inFlight, uid)
}

// retry makes a pod active again whose write failed, unless it was dropped meanwhile.
func (q *queue) retry(h *head) bool {
	uid := h.pod.UID
	if q.inFlight[uid] != h && q.parked[uid] != h {
		return false
	}
	delete(q.inFlight, uid)
	delete(q.parked, uid)
	q.active[uid] = h
	return true
}

// rouse makes all parked pods active.
func (q *queue) rouse() {
	maps.Copy(q.active, q.parked)
	clear(q.parked)
}
