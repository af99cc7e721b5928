// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// checkNothingLeft stops without --keep-pods and looks for what should have gone with it.
func checkNothingLeft(t *testing.T, m *machine.Machine) {
	t.Helper()
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
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil || strings.Contains(string(out), "pinnace") || strings.Contains(string(out), "pn-") {
		t.Errorf("packet rules are left: %s (%v)", out, err)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Name == "pinnace0" || strings.HasPrefix(i.Name, "pn-") {
			t.Errorf("the interface %s is left", i.Name)
		}
	}
	if left, _ := filepath.Glob("/run/netns/pn-*"); len(left) > 0 {
		t.Errorf("network namespaces are left: %v", left)
	}
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
