// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pinnace-dev/pinnace/test/bench/usage"
)

// restResult is what pods cost that nothing happens to.
type restResult struct {
	Load string `json:"load"`
	// Filled is how long it took until all pods were Ready.
	Filled time.Duration `json:"filledNanoseconds"`
	// Used is over the time that was watched.
	Used []usage.Usage `json:"used"`
}

// fillWith is how many pods each Deployment has that fills the nodes.
const fillWith = 1000

func measureRest(ctx context.Context, s settings) (r *restResult, err error) {
	r = &restResult{Load: load()}
	d, err := startSide(ctx, s, pinnace, s.RestNodes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	began := time.Now()
	for left, i := s.RestPods, 0; left > 0; left, i = left-fillWith, i+1 {
		y, err := d.deployment(fmt.Sprintf("rest-%d", i), min(left, fillWith))
		if err != nil {
			return nil, err
		}
		if _, err := y.create(); err != nil {
			return nil, err
		}
	}
	r.Filled = time.Since(began)
	progress("at rest: %d pods on %d nodes after %s; waiting %s, then measuring for %s", s.RestPods, s.RestNodes, r.Filled.Round(time.Second), s.Settle, s.Idle)
	if err := pause(ctx, s.Settle); err != nil {
		return nil, err
	}
	r.Used, err = usage.Watch(d.program, s.Idle)
	return r, err
}
