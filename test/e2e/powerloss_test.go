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

// checkUpKilled kills `pinnace up` alone. With the same data folder the same pods are there afterwards, and ran on.
func checkUpKilled(t *testing.T, m *machine.Machine) {
	before, shimsBefore := pods(t, m), shims(t, m)
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
}

// checkPowerLoss kills every process with all containers, without warning. The same pods are there afterwards, each once and
// restarted once.
func checkPowerLoss(t *testing.T, m *machine.Machine) {
	before := pods(t, m)
	// All are stopped first: none may see another die, and begin anew what then survives.
	everything := processTree(t, append(shims(t, m), m.PID()))
	for _, pid := range m.Processes() {
		everything = append(everything, pid)
	}
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range everything {
			if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
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
	var want, got []string
	for _, p := range before {
		restarts, err := strconv.Atoi(p.restarts)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%s %s restarted %d times", p.name, p.uid, restarts+1))
	}
	for _, p := range pods(t, m) {
		got = append(got, fmt.Sprintf("%s %s restarted %s times", p.name, p.uid, p.restarts))
	}
	if !slices.Equal(want, got) {
		t.Errorf("the pods changed:\nwant %v\ngot  %v", want, got)
	}
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
