// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"slices"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// memory is what the controller knows beside its cache, by the UIDs of Jobs. All of it can be lost: a new process starts from a cache that shows all
// that was written. Its methods may be called concurrently.
type memory struct {
	mu sync.Mutex
	// released are pods that lost the tracking finalizer, until the cache shows it. Counting one a second time is the one thing that
	// must never happen, so there is no time after which this is forgotten.
	released map[types.UID]map[types.UID]bool
	// backoff is as of the last count that is in the status.
	backoff map[types.UID]jobstate.Backoff
}

func newMemory() *memory {
	return &memory{released: map[types.UID]map[types.UID]bool{}, backoff: map[types.UID]jobstate.Backoff{}}
}

// Released notes pods that lost the finalizer.
func (m *memory) Released(job types.UID, pods []*pcorev1.Pod) {
	if len(pods) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.released[job] == nil {
		m.released[job] = map[types.UID]bool{}
	}
	for _, pod := range pods {
		m.released[job][pod.UID] = true
	}
}

// Strip returns the pods without the finalizers that they have lost. With prune, which is for pods straight from the cache, what the
// cache shows is forgotten. What it doesn't show at all is not: a pod may have been made and dropped before the cache shows its birth.
func (m *memory) Strip(job types.UID, pods []*pcorev1.Pod, prune bool) []*pcorev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	released := m.released[job]
	if len(released) == 0 {
		return pods
	}
	out := make([]*pcorev1.Pod, 0, len(pods))
	for _, pod := range pods {
		switch {
		case !released[pod.UID]:
		case jobstate.IsTracked(pod):
			pod = kube.CopyPod(pod)
			pod.Finalizers = slices.DeleteFunc(pod.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer })
		case prune:
			delete(released, pod.UID)
		}
		out = append(out, pod)
	}
	return out
}

// Backoff returns what is known about failures; on a first look that is what the pods tell.
func (m *memory) Backoff(job types.UID, pods []*pcorev1.Pod) jobstate.Backoff {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.backoff[job]
	if !ok {
		b = jobstate.BackoffOf(pods)
		m.backoff[job] = b
	}
	return b
}

// SetBackoff notes the backoff as of a count that has been written.
func (m *memory) SetBackoff(job types.UID, b jobstate.Backoff) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backoff[job] = b
}

// Forget drops what is known about a Job that is gone or finished.
func (m *memory) Forget(job types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.released, job)
	delete(m.backoff, job)
}
