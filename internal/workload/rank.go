// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// candidate is a pod with everything that decides about its rank, computed once rather than at each comparison.
type candidate struct {
	pod       *pcorev1.Pod
	bound     bool
	phase     int
	ready     bool
	readyAt   metav1.Time
	cost      int32
	colocated int
	restarts  [2]int32
}

// DeletionOrder returns the active pods, those that should go first in front. The rules and their order are upstream's
// (k8s.io/kubernetes pkg/controller/controller_utils.go, ActivePodsWithRanks): unassigned, then pending, then not ready, then cheap to
// delete (annotation controller.kubernetes.io/pod-deletion-cost), then doubled up on a node, then ready for a shorter time and created
// later, both compared by their order of magnitude so that the choice among pods of a similar age is spread.
//
// colocated says how many active pods of the same application each node holds.
func DeletionOrder(pods []*pcorev1.Pod, colocated map[string]int, now time.Time) []*pcorev1.Pod {
	list := make([]candidate, 0, len(pods))
	for _, pod := range pods {
		if IsActive(pod) {
			list = append(list, makeCandidate(pod, colocated))
		}
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return compare(a, b, now) })
	out := make([]*pcorev1.Pod, len(list))
	for i := range list {
		out[i] = list[i].pod
	}
	return out
}

func makeCandidate(pod *pcorev1.Pod, colocated map[string]int) candidate {
	c := candidate{pod: pod, bound: pod.Spec.NodeName != ""}
	switch pod.Status.Phase {
	case corev1.PodUnknown:
		c.phase = 1
	case corev1.PodRunning:
		c.phase = 2
	}
	c.readyAt, c.ready = ReadySince(pod)
	if n, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32); err == nil {
		c.cost = int32(n)
	}
	if c.bound {
		c.colocated = colocated[pod.Spec.NodeName]
	}
	c.restarts = restarts(pod)
	return c
}

// restarts is the highest restart count among the containers, and among the sidecars.
func restarts(pod *pcorev1.Pod) [2]int32 {
	var out [2]int32
	for i := range pod.Status.ContainerStatuses {
		out[0] = max(out[0], pod.Status.ContainerStatuses[i].RestartCount)
	}
	for i := range pod.Status.InitContainerStatuses {
		s := &pod.Status.InitContainerStatuses[i]
		if isSidecar(pod, s.Name) {
			out[1] = max(out[1], s.RestartCount)
		}
	}
	return out
}

func isSidecar(pod *pcorev1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.Name == name {
			return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	return false
}

// compare is negative when a should be deleted before b.
func compare(a, b candidate, now time.Time) int {
	if c := falseFirst(a.bound, b.bound); c != 0 {
		return c
	}
	if c := cmp.Compare(a.phase, b.phase); c != 0 {
		return c
	}
	if c := falseFirst(a.ready, b.ready); c != 0 {
		return c
	}
	if c := cmp.Compare(a.cost, b.cost); c != 0 {
		return c
	}
	if c := cmp.Compare(b.colocated, a.colocated); c != 0 {
		return c
	}
	if a.ready && !a.readyAt.Equal(&b.readyAt) {
		return youngerFirst(a, b, a.readyAt, b.readyAt, now)
	}
	if c := cmp.Or(cmp.Compare(b.restarts[0], a.restarts[0]), cmp.Compare(b.restarts[1], a.restarts[1])); c != 0 {
		return c
	}
	if !a.pod.CreationTimestamp.Equal(&b.pod.CreationTimestamp) {
		return youngerFirst(a, b, a.pod.CreationTimestamp, b.pod.CreationTimestamp, now)
	}
	// Upstream leaves equals in any order. A fixed one makes a repeated plan delete the same pods.
	return cmp.Or(cmp.Compare(a.pod.UID, b.pod.UID), cmp.Compare(a.pod.Name, b.pod.Name))
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// youngerFirst compares two ages by their order of magnitude; a missing time counts as the youngest. Within one
// order of magnitude the UID decides, which is as good as random and never changes.
func youngerFirst(a, b candidate, at, bt metav1.Time, now time.Time) int {
	if at.IsZero() || bt.IsZero() {
		return falseFirst(!at.IsZero(), !bt.IsZero())
	}
	return cmp.Or(cmp.Compare(magnitude(at, now), magnitude(bt, now)), cmp.Compare(a.pod.UID, b.pod.UID), cmp.Compare(a.pod.Name, b.pod.Name))
}

func magnitude(t metav1.Time, now time.Time) int64 {
	age := now.Sub(t.Time)
	if age <= 0 {
		return -1
	}
	return int64(math.Log2(float64(age)))
}
