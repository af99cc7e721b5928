// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Crash back-off, upstream's numbers.
const (
	backoffFirst = 10 * time.Second
	backoffMost  = 300 * time.Second
	// backoffForget is how long a container must have run since the last restart for the back-off to begin anew.
	backoffForget = 2 * backoffMost
)

// backoff is how long a container has to wait after its end before it is started again. The zero value: not at all.
type backoff struct {
	delay   time.Duration
	updated time.Time
}

// until is when a container that ended at that time may start again.
func (b backoff) until(ended time.Time) time.Time {
	if b.delay == 0 || ended.Sub(b.updated) > backoffForget {
		return ended
	}
	return ended.Add(b.delay)
}

// next is the back-off after a restart now of a container that ended at that time.
func (b backoff) next(ended, now time.Time) backoff {
	if b.delay == 0 || ended.Sub(b.updated) > backoffForget {
		return backoff{delay: backoffFirst, updated: now}
	}
	return backoff{delay: min(2*b.delay, backoffMost), updated: now}
}

func crashMessage(pod *pcorev1.Pod, name string, b backoff) string {
	return fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", shortDuration(b.delay), name, pod.Name, pod.Namespace, pod.UID)
}

// shortDuration writes 10s, 1m20s and 5m0s as upstream's messages do.
func shortDuration(d time.Duration) string { return d.Round(time.Second).String() }
