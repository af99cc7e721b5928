// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"cmp"
	"math"
	"slices"

	"github.com/pinnace-dev/pinnace/internal/revision"
)

// isScaled says whether the Deployment's size changed since its ReplicaSets were sized.
func (b *board) isScaled() bool {
	for _, s := range active(b.all()) {
		if desired, ok := revision.Count(s.rs, revision.DesiredAnnotation); ok && desired != b.settings.replicas {
			return true
		}
	}
	return false
}

// scale gives the ReplicaSets the sizes that a new size of the Deployment means for them. In the middle of a rollout each
// gets its share, because a rollout that has gone wrong must not get all of the growth, and the old revision not all of the cut.
func (b *board) scale() {
	want := b.settings.replicas
	if only := b.onlyActive(); only != nil {
		// One that was adopted says no size yet, and gets none as long as it has the right one.
		_, says := revision.Count(only.rs, revision.DesiredAnnotation)
		only.size, only.force = want, says
		return
	}
	if b.isSaturated() {
		for _, s := range b.old {
			s.size = 0
		}
		return
	}
	if b.settings.rolling {
		b.share()
	}
}

// onlyActive is the one set that has pods, or the newest when none has; nil when several have.
func (b *board) onlyActive() *set {
	sets := active(b.all())
	switch {
	case len(sets) == 1:
		return sets[0]
	case len(sets) > 1:
		return nil
	case b.newest != nil:
		return b.newest
	case len(b.old) > 0:
		return b.old[len(b.old)-1]
	}
	return nil
}

// isSaturated says whether the newest set carries the whole Deployment, and all of its pods are available.
func (b *board) isSaturated() bool {
	if b.newest == nil || !b.isObserved() {
		return false
	}
	desired, ok := revision.Count(b.newest.rs, revision.DesiredAnnotation)
	want := b.settings.replicas
	return ok && desired == want && b.newest.size == want && b.newest.rs.Status.AvailableReplicas == want
}

// share spreads the pods that are to be added or taken over the active sets in proportion to their sizes; what rounding
// leaves over goes to the largest.
func (b *board) share() {
	sets := active(b.all())
	var allowed int32
	if b.settings.replicas > 0 {
		allowed = b.settings.most()
	}
	toAdd := allowed - total(sets)
	for _, s := range sets {
		s.force = true
	}
	if toAdd == 0 || len(sets) == 0 { // none is active in a Deployment that was paused before its first rollout
		return
	}
	slices.SortFunc(sets, func(x, y *set) int {
		age := byAge(x.rs, y.rs)
		if toAdd > 0 {
			age = -age // growing, the newer one comes first
		}
		return cmp.Or(cmp.Compare(y.size, x.size), age)
	})
	var added int32
	for _, s := range sets {
		part := b.proportion(s, toAdd, added)
		s.size += part
		added += part
	}
	sets[0].size = max(0, sets[0].size+toAdd-added)
}

// proportion is a set's share of the pods to be added (or taken, when negative), within what is left of them.
func (b *board) proportion(s *set, toAdd, added int32) int32 {
	if toAdd == added {
		return 0
	}
	part := b.fraction(s)
	if toAdd > 0 {
		return min(part, toAdd-added)
	}
	return max(part, toAdd-added)
}

// fraction is by how much a set would change if it kept its share of the Deployment.
func (b *board) fraction(s *set) int32 {
	if b.settings.replicas == 0 {
		return -s.size
	}
	before, ok := revision.Count(s.rs, revision.MaxAnnotation)
	if !ok || before == 0 {
		// Somebody took the annotation away. The present size is the best guess.
		if before = b.deployment.Status.Replicas; before == 0 {
			return 0
		}
	}
	size := float64(s.size) * float64(b.settings.most()) / float64(before)
	return int32(math.Round(size)) - s.size
}
