// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

// rollingUpdate takes one step of a rolling update. Both directions may move in the same step: a pod more in the new set raises the
// number of pods and the number of unavailable ones alike, so that it never allows one fewer in the old sets.
func (b *board) rollingUpdate(p *plan) error {
	if b.newest == nil {
		rs, err := b.makeReplicaSet(b.growth(0))
		if err != nil {
			return err
		}
		p.create = rs
		// The new pods aren't there yet, so nothing old may go on their account; what was spare before still may.
		b.newest = &set{rs: rs, size: *rs.Spec.Replicas, annotations: rs.Annotations, minReady: rs.Spec.MinReadySeconds}
		b.shrink()
		b.newest = nil
		return nil
	}
	switch want := b.settings.replicas; {
	case b.newest.size > want:
		b.newest.size = want
	case b.newest.size < want:
		b.newest.size = b.growth(b.newest.size)
	}
	b.shrink()
	if complete(b.deployment, &b.settings, &b.deployment.Status) {
		p.remove = b.surplus()
	}
	return nil
}

// growth is the size that the newest set may have: as many pods as wanted, but no more in all than the surge allows.
func (b *board) growth(have int32) int32 {
	room := b.settings.most() - total(b.all())
	return have + max(0, min(room, b.settings.replicas-have))
}

// shrink makes the old sets smaller, as far as the bound of available pods allows: first pods that aren't available
// anyway, which would only hold the rollout up, then available ones, the oldest revision first.
func (b *board) shrink() {
	sets := active(b.old)
	if len(sets) == 0 {
		return
	}
	// Pods of the newest set that aren't available yet don't count as spare.
	pending := b.newest.size - min(b.newest.available(), b.newest.size)
	spare := total(b.all()) - b.settings.least() - pending
	if spare <= 0 {
		return
	}
	for _, s := range sets {
		unhealthy := max(0, s.size-s.available())
		cut := min(spare, unhealthy)
		s.size -= cut
		spare -= cut
	}
	var available int32
	for _, s := range b.all() {
		available += min(s.available(), s.size)
	}
	spare = min(spare, available-b.settings.least())
	for _, s := range sets {
		if spare <= 0 {
			return
		}
		cut := min(spare, s.size)
		s.size -= cut
		spare -= cut
	}
}
