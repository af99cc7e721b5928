// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// report tells a person what happens, a line a step. It is safe for concurrent use.
type report struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	// open is true while a step's line waits for its end.
	open bool
}

// step prints that a step starts and returns what ends its line with the time it took.
func (r *report) step(name string) func(error) {
	began := time.Now()
	r.mu.Lock()
	r.freshLine()
	fmt.Fprintf(r.out, "  %s … ", name)
	r.open = true
	r.mu.Unlock()
	return func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.open { // another line came between
			fmt.Fprintf(r.out, "  %s … ", name)
		}
		r.open = false
		if err != nil {
			fmt.Fprintln(r.out, "failed")
			return
		}
		fmt.Fprintf(r.out, "%.1f s\n", time.Since(began).Seconds())
	}
}

// say prints a line of its own.
func (r *report) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freshLine()
	fmt.Fprintf(r.out, format+"\n", args...)
}

func (r *report) freshLine() {
	if r.open {
		fmt.Fprintln(r.out)
		r.open = false
	}
}

// elapsed is the time since the start.
func (r *report) elapsed() time.Duration { return time.Since(r.start) }
