// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLeftovers uses folders for cgroups, in which a process is only named.
func TestLeftovers(t *testing.T) {
	mount := t.TempDir()
	for _, dir := range []string{"memory/pods/burstable/podone/c1", "cpu/pods/burstable/podone", "cpu/pods/podtwo", "pods/besteffort/podthree", "cpu/other/podfour"} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l := Leftovers{Parent: "/pods", mount: mount}
	got, err := l.Pods()
	if diff := cmp.Diff([]string{"one", "three", "two"}, got); diff != "" || err != nil {
		t.Errorf("pods (-want +got):\n%s %v", diff, err)
	}
	process := exec.Command("sleep", "600")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	procs := filepath.Join(mount, "memory/pods/burstable/podone/c1/cgroup.procs")
	if err := os.WriteFile(procs, []byte("0\n"+strconv.Itoa(process.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A real cgroup's files go with it; this one is in the way of rmdir.
	if err := l.Remove("one"); err == nil {
		t.Error("a folder with a file in it was removed")
	}
	_ = process.Wait()
	if status, ok := process.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", process.ProcessState)
	}
	if err := os.Remove(procs); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove("one"); err != nil {
		t.Error(err)
	}
	if got, err = l.Pods(); err != nil || len(got) != 2 {
		t.Errorf("left are %v, %v", got, err)
	}
}
