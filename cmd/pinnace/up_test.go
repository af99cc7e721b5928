// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestAgentArgs: what the agent would die of is said before anything starts.
func TestAgentArgs(t *testing.T) {
	for arg, says := range map[string]string{
		"sync-frequency=30s":                   "",
		"eviction-hard=memory.available<200Mi": "",
		"stop-pods":                            "",
		"no-such-flag=1":                       "no-such-flag",
		"sync-frequency=often":                 "often",
		"sync-frequency":                       "sync-frequency",
		"--sync-frequency=30s":                 "without dashes",
		"":                                     "without dashes",
	} {
		err := checkAgentArgs([]string{arg})
		if says == "" && err != nil {
			t.Errorf("%q: %v", arg, err)
		}
		if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v does not say %q", arg, err, says)
		}
	}
}
