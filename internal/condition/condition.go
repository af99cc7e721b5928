// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package condition

import (
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxMessage is the longest message that a condition carries, in bytes. The status is written often and read by
// everybody, so an error of the API server that quotes a whole object must not live in it.
const MaxMessage = 1024

// Condition is the common content of every kind's condition. LastUpdateTime is lost where the kind has no such field.
type Condition struct {
	Type               string
	Status             corev1.ConditionStatus
	Reason             string
	Message            string
	LastUpdateTime     metav1.Time
	LastTransitionTime metav1.Time
}

// Codec turns one kind's conditions into Condition and back.
type Codec[C any] struct {
	From func(C) Condition
	To   func(Condition) C
}

// Get returns the condition of that type, and whether there is one.
func (k Codec[C]) Get(list []C, kind string) (Condition, bool) {
	for i := range list {
		if c := k.From(list[i]); c.Type == kind {
			return c, true
		}
	}
	return Condition{}, false
}

// Set puts c into the list in place of the condition of the same type, and returns the list. Nothing changes when
// status, reason and message are the same; the transition time changes only together with the status. The list given
// is never written to.
func (k Codec[C]) Set(list []C, c Condition, now time.Time) []C {
	c.Message = Bound(c.Message)
	stamp := Stamp(now)
	c.LastUpdateTime, c.LastTransitionTime = stamp, stamp
	out := make([]C, 0, len(list)+1)
	found := false
	for i := range list {
		old := k.From(list[i])
		if old.Type != c.Type {
			out = append(out, list[i])
			continue
		}
		if found {
			continue // a doubled entry, which only a foreign writer can have made
		}
		found = true
		if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
			out = append(out, list[i])
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		out = append(out, k.To(c))
	}
	if !found {
		out = append(out, k.To(c))
	}
	return out
}

// SetReason is Set, except that a condition which already has this status and reason keeps its message and times.
// Upstream's workload conditions (Available, Progressing) follow this rule.
func (k Codec[C]) SetReason(list []C, c Condition, now time.Time) []C {
	if old, ok := k.Get(list, c.Type); ok && old.Status == c.Status && old.Reason == c.Reason {
		return list
	}
	return k.Set(list, c, now)
}

// Remove returns the list without the conditions of those types. The list given is never written to.
func (k Codec[C]) Remove(list []C, kinds ...string) []C {
	var out []C
next:
	for i := range list {
		c := k.From(list[i])
		for _, kind := range kinds {
			if c.Type == kind {
				continue next
			}
		}
		out = append(out, list[i])
	}
	return out
}

// Stamp is now as an API server stores it: whole seconds, UTC. Comparing a fresh status with a stored one needs that.
func Stamp(now time.Time) metav1.Time {
	return metav1.NewTime(now.UTC().Truncate(time.Second))
}

// Bound makes a message fit for a condition: one line, at most MaxMessage bytes, cut at a whole character.
func Bound(message string) string {
	message = strings.Join(strings.Fields(message), " ")
	if len(message) <= MaxMessage {
		return message
	}
	const ellipsis = "…"
	cut := MaxMessage - len(ellipsis)
	for cut > 0 && !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + ellipsis
}
