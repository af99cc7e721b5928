// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// pollEvery is how often a condition is asked for that nothing tells of.
const pollEvery = 100 * time.Millisecond

// fatal is a complaint that no waiting ends.
type fatal struct{ error }

// poll asks until there is nothing to complain of, and returns the last complaint when that takes too long.
func poll(ctx context.Context, within time.Duration, complain func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollEvery, within, true, func(ctx context.Context) (bool, error) {
		complaint := complain(ctx)
		if ctx.Err() != nil && last != nil {
			return false, ctx.Err() // The time is over, which says less than what was complained of before.
		}
		last = complaint
		if stop, ok := last.(fatal); ok { //nolint:errorlint // It is made here and never wrapped.
			last = stop.error
			return false, stop.error
		}
		return last == nil, nil
	})
	switch {
	case last == nil && err == nil:
		return nil
	case wait.Interrupted(err) && last != nil:
		return fmt.Errorf("not seen within %s: %w", within, last)
	case last != nil:
		return last
	}
	return err
}
