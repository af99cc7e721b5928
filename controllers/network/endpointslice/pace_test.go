// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

// TestPace plays changes at given times and notes when they are written.
func TestPace(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		least, most time.Duration
		changes     int           // one every 20 ms
		want        []int         // ms of the writes
		quiet       time.Duration // then one more change after this time
		last        int
	}{
		"one change":     {0, maxWindow, 1, []int{0}, 2 * time.Second, 2000},
		"a busy service": {0, maxWindow, 60, []int{0, 100, 300, 700}, 3 * time.Second, 3000},
		"growing":        {maxWindow, maxWindow, 60, []int{0, 500, 1000}, 3 * time.Second, 3000},
		"shrinking":      {0, shrinkWindow, 40, []int{0, 100, 300, 500, 700}, 3 * time.Second, 3000},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Unix(1000, 0)
			now := start
			r := NewReconciler(nil)
			r.now = func() time.Time { return now }
			key := types.NamespacedName{Name: "web"}
			var writes []int
			try := func() {
				if r.due(key, c.least, c.most) == 0 {
					writes = append(writes, int(now.Sub(start)/ms))
				}
			}
			for i := range c.changes {
				now = start.Add(time.Duration(i) * 20 * ms)
				try()
			}
			now = start.Add(c.quiet)
			try()
			if diff := cmp.Diff(append(c.want, c.last), writes); diff != "" {
				t.Error(diff)
			}
		})
	}
}
