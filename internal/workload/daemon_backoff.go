// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import "time"

// How long a failed daemon pod stays before another takes its place; upstream's numbers
// (k8s.io/kubernetes cmd/kube-controller-manager/app, startDaemonSetController).
const (
	firstNodeBackoff = time.Second
	lastNodeBackoff  = 15 * time.Minute
)

// NodeBackoff spaces out the replacing of pods that fail again and again on the same node, where an agent refuses them for instance.
// The first failed pod goes at once, each further one later than the one before. The zero value is ready for use; it is
// not safe for concurrent use.
type NodeBackoff struct {
	attempts map[string]nodeAttempt
}

type nodeAttempt struct {
	at    time.Time
	delay time.Duration
}

// Wait is how long the failed pod of a node has to stay from now on; 0 means that it may go.
func (b *NodeBackoff) Wait(node string, now time.Time) time.Duration {
	last, ok := b.attempts[node]
	if !ok || last.expired(now) {
		return 0
	}
	return max(0, last.at.Add(last.delay).Sub(now))
}

// Replaced notes that the failed pod of a node went.
func (b *NodeBackoff) Replaced(node string, now time.Time) {
	if b.attempts == nil {
		b.attempts = map[string]nodeAttempt{}
	}
	for other, a := range b.attempts { // nodes come and go
		if a.expired(now) {
			delete(b.attempts, other)
		}
	}
	delay := firstNodeBackoff
	if last, ok := b.attempts[node]; ok {
		delay = min(2*last.delay, lastNodeBackoff)
	}
	b.attempts[node] = nodeAttempt{at: now, delay: delay}
}

// expired: nothing failed for so long that the next failure is a first one again.
func (a nodeAttempt) expired(now time.Time) bool { return now.Sub(a.at) > 2*lastNodeBackoff }
