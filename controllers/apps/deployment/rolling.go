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
		return nil // what may go of the old ones is decided once its status is there
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

// isObserved says whether the status of every set describes its present size.
func (b *board) isObserved() bool {
	for _, s := range b.all() {
		if s.rs.Generation > s.rs.Status.ObservedGeneration {
			return false
		}
	}
	return true
}

// growth is the size that the newest set may have: as many pods as wanted, but no more in all than the surge allows. Pods that
// should go but are still there count, too; upstream looks at the wanted sizes alone, and is above its surge for as long as
// deletions fail.
func (b *board) growth(have int32) int32 {
	room := b.settings.most()
	for _, s := range b.all() {
		room -= max(s.size, s.rs.Status.Replicas)
	}
	return have + max(0, min(room, b.settings.replicas-have))
}

// shrink makes the old sets smaller, as far as the bound of available pods allows: first pods that aren't available
// anyway, which would only hold the rollout up, then available ones, the oldest revision first.
//
// It waits until every ReplicaSet's status describes its present size: of a set that was made smaller and larger again, an older
// status may count pods that are gone. Upstream doesn't wait, and can fall below its bound there.
func (b *board) shrink() {
	sets := active(b.old)
	if len(sets) == 0 || !b.isObserved() {
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
