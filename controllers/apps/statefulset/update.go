// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import "github.com/pinnace-dev/pinnace/internal/workload"

// rollOut replaces pods of old revisions, the highest ordinal first, as many as maxUnavailable allows. With OrderedReady it is reached
// only while all wanted pods are available and no other is left.
func (b *board) rollOut() {
	down := 0
	for i := range b.slots {
		if !b.slots[i].up(b.scope) {
			down++
		}
	}
	st := stage{parallel: !b.settings.ordered}
	if !b.settings.ordered {
		// What is down anyway goes first and costs nothing. Otherwise the budget might be spent on good pods, and the bad ones
		// never be reached.
		b.eachOutdated(func(s *slot) {
			if !b.isAvailable(s.pod) {
				st.tasks = append(st.tasks, s.replace())
			}
		})
	}
	budget := b.settings.maxUnavailable - down
	b.eachOutdated(func(s *slot) {
		if budget > 0 && (b.settings.ordered || s.up(b.scope)) {
			st.tasks = append(st.tasks, s.replace())
			budget--
		}
	})
	b.add(st)
}

// unblock replaces pods of superseded revisions that were never ready, whatever their predecessors do. Such a pod never served anybody, and
// without this a bad revision would hold up the good one that follows it for ever: the update waits for the pod, and nobody replaces the
// pod but the update. Upstream documents that as a broken state to be repaired by hand; see docs/adr/0057.
func (b *board) unblock() {
	if !b.settings.ordered || !b.settings.rolling {
		return // Parallel replaces what is down anyway; OnDelete replaces nothing
	}
	var st stage
	b.eachOutdated(func(s *slot) {
		if wasNeverReady(s.pod) && !workload.IsTerminal(s.pod) {
			st.tasks = append(st.tasks, s.replace())
		}
	})
	b.add(st)
}

// eachOutdated visits the wanted pods that the update reaches and that are of another revision, the highest ordinal first.
func (b *board) eachOutdated(visit func(*slot)) {
	for i := len(b.slots) - 1; i >= 0; i-- {
		s := &b.slots[i]
		if s.ordinal < b.settings.updateFrom {
			return
		}
		if s.pod != nil && !s.removed && s.pod.DeletionTimestamp == nil && revisionOf(s.pod) != b.update.name {
			visit(s)
		}
	}
}

// up says whether the slot's pod is available and stays.
func (s *slot) up(scope *scope) bool { return !s.removed && scope.isUp(s.pod) }

func (s *slot) replace() task {
	s.removed = true
	return task{remove: s.pod}
}
