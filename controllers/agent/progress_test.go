// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

func TestPullText(t *testing.T) {
	for _, c := range []struct {
		state pullState
		want  string
	}{
		{pullState{image: "a:1", waited: 5 * time.Second, pulls: 5}, `Waiting for 5 other images to be pulled before "a:1", for 5 s`},
		{pullState{image: "a:1", waited: 5 * time.Second, begun: true, pulls: 1}, `Pulling image "a:1", for 5 s`},
		{pullState{image: "a:1", waited: 9 * time.Second, begun: true, pulls: 1, PullProgress: PullProgress{Done: 12e6, Total: 80e6}}, `Pulling image "a:1": 12 MB of 80 MB after 9 s`},
		{pullState{image: "a:1", waited: 9 * time.Second, begun: true, pulls: 1, PullProgress: PullProgress{Done: 1234567}}, `Pulling image "a:1": 1.2 MB after 9 s`},
		{pullState{image: "a:1", waited: time.Minute, begun: true, pulls: 1, PullProgress: PullProgress{Done: 80e6, Total: 80e6}}, `Pulling image "a:1": all 80 MB are here and being unpacked, after 60 s`},
		{pullState{image: "a:1", waited: 9 * time.Second, begun: true, pulls: 2, PullProgress: PullProgress{Done: 12e6, Total: 80e6}},
			`Pulling image "a:1": 12 MB of 80 MB after 9 s (of the 2 images that are being pulled)`},
	} {
		if got := pullText(c.state); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestProgressIsThrottled(t *testing.T) {
	want := []time.Duration{5, 15, 30, 60, 90}
	for n, after := range want {
		if got := progressAfter(n); got != after*time.Second {
			t.Errorf("the news number %d come after %s, want %d s", n, got, after)
		}
	}
}
