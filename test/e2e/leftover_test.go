// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fmt"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// checkNothingLeft stops without --keep-pods and looks for what should have gone with it.
func checkNothingLeft(t *testing.T, m *machine.Machine) {
	stop(t, m)
	start(t, m)
	scale(t, m, 3)
	stop(t, m)
	eventually(t, 20*time.Second, func() error {
		if left := processesNaming(m.DataDir); len(left) > 0 {
			return fmt.Errorf("processes are left: %v", left)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, m.DataDir) {
				return fmt.Errorf("a mount is left: %s", line)
			}
		}
		return nil
	})
}

// processesNaming lists the processes that have a text on their command line or are below a folder's containerd.
func processesNaming(text string) []string {
	var out []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), text) && filepath.Dir(file) != fmt.Sprintf("/proc/%d", os.Getpid()) {
			out = append(out, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return out
}
