// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// TestEchoOfAWrite: our own write needs no look, whether the cache or the API server's answer brings it first. All else does.
func TestEchoOfAWrite(t *testing.T) {
	ours := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}}
	cases := map[string]struct {
		// during and after the write the cache brings these versions; the write ends with written.
		during  []string
		written *pcorev1.Pod
		after   []string
		looks   int
	}{
		"the echo after the answer":              {written: ours, after: []string{"7"}},
		"the echo before the answer":             {during: []string{"7"}, written: ours},
		"a later change before the answer":       {during: []string{"7", "8"}, written: ours, looks: 1},
		"a later change after the answer":        {during: []string{"7"}, written: ours, after: []string{"8"}, looks: 1},
		"a change that the write conflicts with": {during: []string{"6"}, looks: 1},
		"the same, brought later":                {after: []string{"6"}, looks: 1},
		"nothing but the write":                  {written: ours},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			rec, looks := &record{}, 0
			hear := func(versions []string) {
				for _, v := range versions {
					if !rec.caughtUp(v) {
						looks++
					}
				}
			}
			rec.beginWrite()
			hear(c.during)
			if rec.endWrite(c.written) {
				looks++
			}
			hear(c.after)
			if looks != c.looks {
				t.Errorf("%d looks, want %d", looks, c.looks)
			}
		})
	}
}
