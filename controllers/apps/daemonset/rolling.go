// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"cmp"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// roll replaces the next pods of older revisions, as far as the update strategy's bounds allow.
func (b *board) roll() error {
	surge, unavailable, err := b.settings.bounds(b.desired())
	if err != nil {
		return err
	}
	if surge > 0 {
		b.surge(surge)
	} else {
		b.swap(unavailable)
	}
	return nil
}

// desired is the number of nodes that should run a pod.
func (b *board) desired() int {
	n := 0
	for _, p := range b.places {
		if p.match.MayStart() {
			n++
		}
	}
	return n
}

// pair finds the pods of a node that aren't deleted. ok is false when there are two of one sort, which manage will change.
func (b *board) pair(p *place) (newer, older *pcorev1.Pod, ok bool) {
	for _, pod := range p.pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		kept := &older
		if b.isNew(pod) {
			kept = &newer
		}
		if *kept != nil {
			return nil, nil, false
		}
		*kept = pod
	}
	return newer, older, true
}

// swap deletes old pods; manage makes the new ones. Old pods that aren't available go at once, of the others as many as keep the nodes without an
// available pod within the bound. A node that has no pod counts, also when its old pod is still ending. A node that should run none (a taint keeps
// pods away, say, because it is lost) doesn't count: it could hold the rollout up for ever.
func (b *board) swap(maxUnavailable int) {
	down := 0
	var candidates []*pcorev1.Pod
	for _, p := range b.places {
		if !p.exists {
			continue
		}
		newer, older, ok := b.pair(p)
		switch {
		case ok && older != nil && newer == nil && b.available(older):
			candidates = append(candidates, older)
			continue
		case ok && older != nil && newer == nil:
			b.remove(older)
		case ok && older == nil && newer != nil && b.available(newer):
			continue
		}
		if p.match.MayStart() {
			down++
		}
	}
	for _, pod := range candidates[:min(len(candidates), max(0, maxUnavailable-down))] {
		b.remove(pod)
	}
}

// surge makes new pods beside old ones, and deletes an old pod when the new one beside it is available. Where the old pod isn't available, a new
// one is made without counting. Pods of nodes that should run none any longer go when that leaves enough available ones elsewhere.
func (b *board) surge(maxSurge int) {
	surging, up := 0, 0
	var candidates []*place
	var leaving []*pcorev1.Pod
	for _, p := range b.places {
		if !p.exists {
			continue
		}
		newer, older, ok := b.pair(p)
		if !ok {
			surging++
			continue
		}
		if one := cmp.Or(older, newer); one != nil && b.available(one) {
			up++
		}
		switch {
		case older == nil:
		case newer != nil && b.available(newer):
			b.remove(older)
		case newer != nil:
			surging++
		case b.available(older) && p.match.MayStart():
			candidates = append(candidates, p)
		case b.available(older):
			leaving = append(leaving, older)
		case p.match.MayStart():
			b.create(p)
		default:
			b.remove(older)
		}
	}
	for _, p := range candidates[:min(len(candidates), max(0, maxSurge-surging))] {
		b.create(p)
	}
	for _, pod := range leaving[:min(len(leaving), max(0, up-b.desired()))] {
		b.remove(pod)
	}
}
