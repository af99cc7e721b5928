// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"os"
	"strconv"
	"strings"
)

// capSysResource is the bit of CAP_SYS_RESOURCE in a capability set; see capabilities(7).
const capSysResource = 24

// MayRaiseLimits reports whether this process may lower OOM scores and raise limits (CAP_SYS_RESOURCE). Root in
// containers and on CI machines often may not. When it can't be found out, the answer is no, which is the safe one.
func MayRaiseLimits() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	return mayRaiseLimits(string(status))
}

// mayRaiseLimits looks into the text of /proc/<pid>/status.
func mayRaiseLimits(status string) bool {
	for line := range strings.Lines(status) {
		value, found := strings.CutPrefix(line, "CapEff:")
		if !found {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		return err == nil && set&(1<<capSysResource) != 0
	}
	return false
}
