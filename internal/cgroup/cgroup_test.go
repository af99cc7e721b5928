// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRemovePodFromEveryTree(t *testing.T) {
	mount := t.TempDir()
	kept := filepath.Join(mount, "cpu/pinnace/podother")
	for _, dir := range []string{"cpu/pinnace/burstable/poduid/container", "memory/pinnace/poduid", "pinnace/besteffort/poduid", "cpu/pinnace/podother"} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := removePod(mount, "/pinnace", "uid"); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"*/pinnace/*/poduid", "*/pinnace/poduid", "pinnace/*/poduid"} {
		if left, err := filepath.Glob(filepath.Join(mount, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("another pod's cgroup is gone: %v", err)
	}
}

func TestRemoveEmptyKeepsPods(t *testing.T) {
	mount := t.TempDir()
	for _, dir := range []string{"cpu/pinnace/burstable", "cpu/pinnace/besteffort", "memory/pinnace/besteffort/podother", "memory/pinnace/burstable"} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := removeEmpty(mount, "/pinnace"); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]bool{"cpu/pinnace": false, "memory/pinnace/burstable": false, "memory/pinnace/besteffort/podother": true} {
		if _, err := os.Stat(filepath.Join(mount, dir)); (err == nil) != want {
			t.Errorf("%s: there is %t, want %t", dir, err == nil, want)
		}
	}
}
