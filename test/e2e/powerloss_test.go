// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/test/machine"
)

// TestPowerLoss kills without warning, first `pinnace up` alone and then every process with all containers. With the same data folder the
// same pods are there afterwards, each once.
func TestPowerLoss(t *testing.T) {
	m := realMachine(t)
	start(t, m)
	applySample(t, m)
	before := pods(t, m)

	t.Run("kill -9 of pinnace up", func(t *testing.T) {
		shimsBefore := shims(t, m)
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		start(t, m)
		scale(t, m, len(before))
		eventually(t, time.Minute, func() error { return allAnswer(t, m) })
		if after := pods(t, m); !slices.Equal(before, after) {
			t.Errorf("the pods changed:\nbefore %v\nafter  %v", before, after)
		}
		if after := shims(t, m); !slices.Equal(shimsBefore, after) {
			t.Errorf("the containers did not run on: shims %v, then %v", shimsBefore, after)
		}
	})
	t.Run("kill -9 of everything", func(t *testing.T) {
		everything := processTree(t, append(shims(t, m), m.PID()))
		for _, pid := range m.Processes() {
			everything = append(everything, pid)
		}
		for _, pid := range everything {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
		}
		if err := m.Kill(); err != nil { // It is gone; this waits for it.
			t.Fatal(err)
		}
		start(t, m)
		eventually(t, 2*time.Minute, func() error {
			if now := len(shims(t, m)); now != len(before) {
				return fmt.Errorf("%d sandboxes run for %d pods", now, len(before))
			}
			return allAnswer(t, m)
		})
		scale(t, m, len(before))
		var uids, again []string
		for _, p := range before {
			uids = append(uids, p.uid)
		}
		for _, p := range pods(t, m) {
			again = append(again, p.uid)
		}
		slices.Sort(uids)
		slices.Sort(again)
		if !slices.Equal(uids, again) {
			t.Errorf("the pods changed:\nbefore %v\nafter  %v", uids, again)
		}
		restarts := kubectl(t, m, "get", "ppo", "-n", "hello", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
		if want := strings.TrimSpace(strings.Repeat("1 ", len(before))); restarts != want {
			t.Errorf("the restart counts are %q, want %q", restarts, want)
		}
	})
	t.Run("Ctrl-C leaves nothing behind", func(t *testing.T) { checkNothingLeft(t, m) })
}

// shims are the processes that hold the sandboxes of this machine's node, one a pod.
func shims(t *testing.T, m *machine.Machine) []int {
	t.Helper()
	state := containerd.ForNode(filepath.Join(m.DataDir, "nodes", "node-1"), "").State
	var out []int
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte("containerd-shim")) || !bytes.Contains(line, []byte(state)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// processTree are the processes and all that they have started.
func processTree(t *testing.T, roots []int) []int {
	t.Helper()
	children := map[int][]int{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // It has ended.
		}
		// "pid (name) state parent …"; the name may hold anything.
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			t.Fatal(err)
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	out := slices.Clone(roots)
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}
