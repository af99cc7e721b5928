// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package jobstate

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

const (
	// firstPause is the pause after a first failure. Upstream's.
	firstPause = 10 * time.Second
	// longestPause ends the doubling. Upstream's since 1.28; it used to be six minutes.
	longestPause = 10 * time.Minute
)

// Backoff is how a Job has fared since its last success. The zero value means that nothing failed. A Backoff is never changed in place.
type Backoff struct {
	// success is when the last pod succeeded.
	success time.Time
	// failed says when each pod failed that did so after that. By UID, so that it does no harm to look at a pod more than once.
	failed map[types.UID]time.Time
}

// Next is the backoff after more pods have ended, in any order (upstream's newBackoffRecord).
func (b Backoff) Next(succeeded, failed []*pcorev1.Pod) Backoff {
	if len(succeeded)+len(failed) == 0 {
		return b
	}
	out := Backoff{success: b.success, failed: map[types.UID]time.Time{}}
	for _, pod := range succeeded {
		out.success = later(out.success, FinishedAt(pod))
	}
	for uid, at := range b.failed {
		if at.After(out.success) {
			out.failed[uid] = at
		}
	}
	for _, pod := range failed {
		at := FinishedAt(pod)
		if before, known := b.failed[pod.UID]; known {
			at = before // a deleted pod's time changes when its containers end
		}
		if at.After(out.success) {
			out.failed[pod.UID] = at
		}
	}
	return out
}

// BackoffOf is the backoff as far as the pods tell that have been counted already: what a controller starts from that has just been
// started. Upstream starts from nothing then.
func BackoffOf(pods []*pcorev1.Pod) Backoff {
	var succeeded, failed []*pcorev1.Pod
	for _, pod := range pods {
		switch {
		case IsTracked(pod) || pod.DeletionTimestamp != nil: // not counted yet, or perhaps ended on purpose
		case pod.Status.Phase == corev1.PodSucceeded:
			succeeded = append(succeeded, pod)
		case pod.Status.Phase == corev1.PodFailed:
			failed = append(failed, pod)
		}
	}
	return Backoff{}.Next(succeeded, failed)
}

// Wait is how long it takes until the next pod may be made; 0 means now.
func (b Backoff) Wait(now time.Time) time.Duration {
	last := time.Time{}
	for _, at := range b.failed {
		last = later(last, at)
	}
	return pauseAfter(len(b.failed), last, now)
}

// IndexWait is how long it takes until the next pod of an index may be made, when last is the pod of it that failed last; nil means that
// none has.
func IndexWait(last *pcorev1.Pod, now time.Time) time.Duration {
	if last == nil {
		return 0
	}
	counted, ignored := IndexFailures(last)
	return pauseAfter(int(counted)+int(ignored)+1, FinishedAt(last), now)
}

// pauseAfter is what is left of the pause after so many failures in a row: 10 s at first, twice as long each time.
func pauseAfter(failures int, last, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	pause := firstPause
	for i := 1; i < failures && pause < longestPause; i++ {
		pause *= 2
	}
	return max(0, last.Add(min(pause, longestPause)).Sub(now))
}

// Latest is the pod that ended last; nil without pods. Equal times go by name, so that the answer doesn't flap.
func Latest(pods []*pcorev1.Pod) *pcorev1.Pod {
	if len(pods) == 0 {
		return nil
	}
	return slices.MaxFunc(pods, func(a, b *pcorev1.Pod) int {
		if c := FinishedAt(a).Compare(FinishedAt(b)); c != 0 {
			return c
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}
