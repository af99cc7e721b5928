// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// tree makes files as the kernel would make them in a new cgroup.
func tree(t *testing.T, mount string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(mount, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t *testing.T, mount, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(mount, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestLimitsInTreesOfEachController(t *testing.T) {
	mount := t.TempDir()
	tree(t, mount, map[string]string{
		"cpu/p/cpu.shares": "1024\n", "cpu/p/cpu.cfs_quota_us": "-1\n", "cpu/p/cpu.cfs_period_us": "100000\n",
		"memory/p/memory.limit_in_bytes": "9223372036854771712\n", "pids/p/pids.max": "max\n",
		"hugetlb/p/hugetlb.2MB.limit_in_bytes": "9223372036854771712\n",
	})
	l := Limits{CPUShares: 512, CPUQuota: 50000, Memory: 64 << 20, PIDs: 100, HugePages: map[int64]int64{2 << 20: 4 << 20, 1 << 30: 0}}
	for range 2 {
		if err := apply(mount, "/p", l); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		"cpu/p/cpu.shares": "512", "cpu/p/cpu.cfs_quota_us": "50000", "memory/p/memory.limit_in_bytes": "67108864",
		"pids/p/pids.max": "100", "hugetlb/p/hugetlb.2MB.limit_in_bytes": "4194304",
	} {
		if got := content(t, mount, file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(mount, "hugetlb/p/hugetlb.1GB.limit_in_bytes")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that the kernel doesn't have was made: %v", err)
	}
	if err := apply(mount, "/p", Limits{CPUQuota: Unlimited, Memory: Unlimited}); err != nil {
		t.Fatal(err)
	}
	if got := content(t, mount, "memory/p/memory.limit_in_bytes") + content(t, mount, "cpu/p/cpu.cfs_quota_us"); got != "-1-1" {
		t.Errorf("limits taken away: %s", got)
	}
}

func TestLimitsInOneTree(t *testing.T) {
	mount := t.TempDir()
	tree(t, mount, map[string]string{
		"cgroup.controllers": "cpu memory pids\n", "q/p/cpu.weight": "100\n", "q/p/cpu.max": "max 100000\n", "q/p/memory.max": "max\n",
		"q/p/pids.max": "max\n",
	})
	if err := apply(mount, "/q/p", Limits{CPUShares: 1024, CPUQuota: 50000, Memory: 1 << 20, PIDs: 7}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"q/p/cpu.weight": "39", "q/p/cpu.max": "50000 100000", "q/p/memory.max": "1048576", "q/p/pids.max": "7"} {
		if got := content(t, mount, file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
	if got := content(t, mount, "q/cgroup.subtree_control"); !strings.HasPrefix(got, "+") {
		t.Errorf("the controllers aren't handed down: %q", got)
	}
}

func TestReadMemory(t *testing.T) {
	for what, files := range map[string]map[string]string{
		"version 1": {"memory/p/memory.usage_in_bytes": "1000\n", "memory/p/memory.stat": "cache 5\ntotal_inactive_file 300\n"},
		"version 2": {"cgroup.controllers": "", "p/memory.current": "1000\n", "p/memory.stat": "anon 5\ninactive_file 300\n"},
	} {
		mount := t.TempDir()
		tree(t, mount, files)
		got, err := readMemory(mount, "/p")
		if want := (Memory{Usage: 1000, WorkingSet: 700}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
		if _, err := readMemory(mount, "/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: no cgroup: %v", what, err)
		}
	}
}

// TestWeight: weights keep the order of shares and stay within version 2's bounds.
func TestWeight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64Range(0, 1000000).Draw(t, "a"), rapid.Int64Range(0, 1000000).Draw(t, "b")
		wa, wb := weight(Shares(a)), weight(Shares(b))
		if wa < 1 || wa > 10000 || (a <= b && wa > wb) {
			t.Fatalf("%dm has weight %d, %dm has %d", a, wa, b, wb)
		}
	})
}
