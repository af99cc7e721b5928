// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"
)

// PullProgress is how far the pulls of a node are, in bytes as they come; Total is 0 while it isn't known.
type PullProgress struct{ Done, Total int64 }

// pullState is what can be told of a pull.
type pullState struct {
	image string
	// waited is how long the pod has waited for it.
	waited time.Duration
	// begun says that it has a place among the pulls; pulls how many have.
	begun bool
	pulls int
	PullProgress
}

// progressAfter is when the status tells of a pull for the nth time: few pulls take so long, and each time is a write.
func progressAfter(n int) time.Duration {
	switch n {
	case 0:
		return 5 * time.Second
	case 1:
		return 15 * time.Second
	}
	return time.Duration(n-1) * 30 * time.Second
}

// pullText tells how far a pull is, and no more than is known.
func pullText(s pullState) string {
	waited := fmt.Sprintf("%d s", int64(s.waited.Round(time.Second).Seconds()))
	if !s.begun {
		return fmt.Sprintf("Waiting for %s to be pulled before %q, for %s", countImages(s.pulls), s.image, waited)
	}
	text := fmt.Sprintf("Pulling image %q", s.image)
	switch {
	case s.Done == 0 && s.Total == 0:
		return text + ", for " + waited
	case s.Total == 0:
		text += fmt.Sprintf(": %s after %s", megabytes(s.Done), waited)
	case s.Done >= s.Total:
		text += fmt.Sprintf(": all %s are here and being unpacked, after %s", megabytes(s.Total), waited)
	default:
		text += fmt.Sprintf(": %s of %s after %s", megabytes(s.Done), megabytes(s.Total), waited)
	}
	if s.pulls > 1 {
		// What comes at the same time can't be told apart.
		text += fmt.Sprintf(" (of the %d images that are being pulled)", s.pulls)
	}
	return text
}

func countImages(n int) string {
	if n == 1 {
		return "another image"
	}
	return fmt.Sprintf("%d other images", n)
}

func megabytes(n int64) string {
	if n < 10e6 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d MB", n/1e6)
}
