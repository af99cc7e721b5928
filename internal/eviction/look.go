// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Reading is what there is of something, and what there could be; in bytes or pieces.
type Reading struct{ Available, Capacity int64 }

// Readings are what a look at the node has found. A signal that couldn't be read is not in it, and evicts nobody.
type Readings map[Signal]Reading

// Memory is what one look leaves for the next. The zero value knows nothing.
type Memory struct {
	// met are the thresholds that drove the last look: they stay until their reclaim is met, too.
	met []Threshold
	// since says from when on each threshold has been met; seen when each condition was last true.
	since []since
	seen  map[corev1.NodeConditionType]time.Time
}

type since struct {
	threshold Threshold
	at        time.Time
}

// Verdict is what follows from a look.
type Verdict struct {
	// Conditions are those of the node that are true.
	Conditions []corev1.NodeConditionType
	// Acute are the thresholds to act on, those of memory first: hard ones, and soft ones whose grace is over.
	Acute []Threshold
}

// Look judges readings. It is upstream's synchronize without the eviction itself.
func Look(m Memory, thresholds []Threshold, readings Readings, transition time.Duration, now time.Time) (Memory, Verdict) {
	met := Met(thresholds, readings, false)
	for _, t := range Met(m.met, readings, true) {
		if !slices.ContainsFunc(met, t.same) {
			met = append(met, t)
		}
	}
	next := Memory{seen: map[corev1.NodeConditionType]time.Time{}}
	for kind, at := range m.seen {
		next.seen[kind] = at
	}
	var v Verdict
	for _, t := range met {
		at := now
		if i := slices.IndexFunc(m.since, func(s since) bool { return s.threshold.same(t) }); i >= 0 {
			at = m.since[i].at
		}
		next.since = append(next.since, since{t, at})
		next.seen[t.Signal.Condition()] = now
		if now.Sub(at) >= t.Grace {
			v.Acute = append(v.Acute, t)
		}
	}
	next.met = v.Acute
	for kind, at := range next.seen {
		if at.Equal(now) || now.Sub(at) < transition {
			v.Conditions = append(v.Conditions, kind)
		} else {
			delete(next.seen, kind)
		}
	}
	slices.Sort(v.Conditions)
	ofMemory := func(t Threshold) bool { return t.Signal.Resource() == corev1.ResourceMemory }
	v.Acute = append([]Threshold(nil), v.Acute...)
	slices.SortStableFunc(v.Acute, func(a, b Threshold) int {
		switch {
		case ofMemory(a) == ofMemory(b):
			return 0
		case ofMemory(a):
			return -1
		}
		return 1
	})
	return next, v
}

// Met are the thresholds that the readings are below; with reclaim also those of which more is to be free again.
func Met(thresholds []Threshold, readings Readings, reclaim bool) []Threshold {
	var out []Threshold
	for _, t := range thresholds {
		r, ok := readings[t.Signal]
		if !ok {
			continue
		}
		bound := t.Value.Of(r.Capacity)
		if reclaim && t.Reclaim != nil {
			bound += t.Reclaim.Of(r.Capacity)
		}
		if r.Available < bound {
			out = append(out, t)
		}
	}
	return out
}

// Hard says whether the threshold evicts at once.
func (t Threshold) Hard() bool { return t.hard() }

// Images says whether removing unused images gives back what the threshold is about: disk, unless the images have another one.
func (t Threshold) Images(host Host) bool {
	switch t.Signal {
	case ImageFSAvailable, ImageFSInodesFree:
		return true
	case NodeFSAvailable, NodeFSInodesFree:
		return !host.ImageFS
	}
	return false
}
