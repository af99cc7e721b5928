// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// pullTeller tells in the status of a pod how far a pull is. Between two times it is a timer, not a goroutine.
type pullTeller struct {
	r         *Reconciler
	rec       *record
	pod       *pcorev1.Pod
	container string
	image     string
	key       string
	began     time.Time
	// again says that the pull was tried before and failed: then only bytes that come are news.
	again bool

	mu    sync.Mutex
	timer *time.Timer
	told  int
	over  bool
}

// tellProgress begins to tell; the function that it returns ends it.
func (r *Reconciler) tellProgress(t *pullTeller) (stop func()) {
	if t.rec.node.Simulated {
		return func() {}
	}
	t.r, t.began = r, r.options.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(progressAfter(0), t.tell)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.over = true
		t.timer.Stop()
	}
}

// tell puts the news into memory, from where the next status takes it, and sets the timer for the next time.
func (t *pullTeller) tell() {
	now := t.r.options.Now()
	s := pullState{image: t.image, waited: now.Sub(t.began)}
	since, pulls := t.rec.node.puller.state(t.key)
	s.begun, s.pulls = !since.IsZero(), pulls
	known := false
	if s.begun && t.rec.node.PullProgress != nil {
		ctx, cancel := context.WithTimeout(t.r.context(), 5*time.Second)
		s.PullProgress, known = t.rec.node.PullProgress(ctx, since)
		cancel()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.told++
	t.timer.Reset(max(progressAfter(t.told)-now.Sub(t.began), time.Second))
	if t.again && (!known || s.Done == 0) {
		return
	}
	t.rec.mu.Lock()
	why := t.rec.mem.failed[t.container]
	why.reason, why.message = defaultWaiting(situation{pod: t.pod}, ""), pullText(s)
	set(&t.rec.mem.failed, t.container, why)
	t.rec.mu.Unlock()
	t.r.wake(t.rec.key)
}
