// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"testing"
	"time"
)

func TestCollectAtRest(t *testing.T) {
	const all = time.Second
	// Each step is a second: what kube-apiserver used of it, and how long the processors had nothing to do. A collection is part of the next step.
	type step struct {
		server, idle time.Duration
		restarted    bool
		want         bool
	}
	for name, steps := range map[string][]step{
		"after work, at rest":               {{server: 2 * time.Second}, {idle: all, want: true}},
		"once until there is more":          {{server: 2 * time.Second}, {idle: all, want: true}, {idle: all}, {idle: all}},
		"the collection's work is not more": {{server: 2 * time.Second}, {idle: all, want: true}, {server: time.Second}, {idle: all}},
		"work after the collection is more": {{server: 2 * time.Second}, {idle: all, want: true}, {idle: all}, {server: time.Second}, {idle: all, want: true}},
		"too little for a collection":       {{server: time.Second / 2}, {idle: all}},
		"little, but again and again":       {{server: time.Second / 2}, {idle: all}, {server: time.Second / 2}, {idle: all, want: true}},
		"kube-apiserver works":              {{server: 2 * time.Second}, {server: time.Second / 10, idle: all}},
		"others work":                       {{server: 2 * time.Second}, {idle: all / 4}, {idle: all, want: true}},
		"a new process has no old garbage":  {{server: 2 * time.Second}, {idle: all, restarted: true}, {idle: all}},
		"a process that ended meanwhile":    {{server: 2 * time.Second}, {idle: all, want: true}, {idle: all, restarted: true}, {server: time.Second}, {idle: all, want: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var c collector
			now := cpuSample{at: time.Unix(0, 0), pid: 1}
			c.due(now)
			for i, s := range steps {
				now.at = now.at.Add(time.Second)
				now.server += s.server
				now.idle += s.idle
				if s.restarted {
					now.pid, now.server = now.pid+1, 0
				}
				if got := c.due(now); got != s.want {
					t.Errorf("step %d: due %t, want %t", i, got, s.want)
				}
			}
		})
	}
}
