// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// account counts the CPU of this program and of all that it starts, by a cgroup: processes that live for milliseconds, such as runc, are counted too, and
// other work of the machine isn't. The pods' own cgroups are elsewhere.
type account struct{ dir, home string }

func openAccount(name string) (*account, error) {
	for _, parent := range []string{"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"} {
		dir := filepath.Join(parent, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		a := &account{dir: dir, home: parent}
		if a.enter(dir) == nil && a.counts() {
			return a, nil
		}
		_ = a.close()
	}
	return nil, errors.New("no cgroup that counts CPU can be made here: neither cpuacct (version 1) nor version 2")
}

func (a *account) enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

func (a *account) counts() bool {
	for _, name := range []string{"cpuacct.usage", "cpu.stat"} {
		if _, err := os.Stat(filepath.Join(a.dir, name)); err == nil {
			return true
		}
	}
	return false
}

// seconds of CPU so far.
func (a *account) seconds() float64 {
	if data, err := os.ReadFile(filepath.Join(a.dir, "cpuacct.usage")); err == nil {
		n, _ := strconv.ParseFloat(string(bytes.TrimSpace(data)), 64)
		return n / 1e9
	}
	data, err := os.ReadFile(filepath.Join(a.dir, "cpu.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(text), 64)
			return n / 1e6
		}
	}
	return 0
}

// close leaves and removes the cgroup.
func (a *account) close() error {
	if err := a.enter(a.home); err != nil {
		return fmt.Errorf("leaving the cgroup of the measurement: %w", err)
	}
	return os.Remove(a.dir)
}

// load is the machine's, over the last minute.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}
