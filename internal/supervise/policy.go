// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import "time"

// Policy says how long to wait before a process that died is started again,
// and when to stop trying.
type Policy struct {
	// Initial is the delay after the first failure in the window.
	Initial time.Duration
	// Max bounds the delay, which doubles with each failure in the window.
	Max time.Duration
	// Limit is the number of failures within Window at which the supervisor
	// gives up. Zero never gives up.
	Limit int
	// Window is how far back failures count. A process that ran longer than
	// the window starts with a clean record.
	Window time.Duration
}

// DefaultPolicy suits a server that takes seconds to start: it rides out a
// short disturbance, and ends within about a minute when a process cannot run.
var DefaultPolicy = Policy{
	Initial: 250 * time.Millisecond,
	Max:     10 * time.Second,
	Limit:   8,
	Window:  3 * time.Minute,
}

// Never gives up at the first failure: for tests, where a restart would hide a
// defect.
var Never = Policy{Limit: 1, Window: time.Hour}

// Decision is what to do after a failure.
type Decision struct {
	// GiveUp is true when the process failed too often; Delay is zero then.
	GiveUp bool
	// Delay is how long to wait before the next start.
	Delay time.Duration
	// Recent is the number of failures that counted.
	Recent int
}

// Decide is pure: it looks at the times of all failures so far, the newest of
// which is usually now, and says what comes next.
func (p Policy) Decide(failures []time.Time, now time.Time) Decision {
	recent := 0
	for _, at := range failures {
		if now.Sub(at) < p.Window {
			recent++
		}
	}
	if p.Limit > 0 && recent >= p.Limit {
		return Decision{GiveUp: true, Recent: recent}
	}
	delay := p.Initial
	for i := 1; i < recent && delay < p.Max; i++ {
		delay *= 2
	}
	return Decision{Delay: min(delay, p.Max), Recent: recent}
}
