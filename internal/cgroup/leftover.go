// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Leftovers are the cgroups of pods below a parent (an absolute path within the trees), for whoever knows which of the pods are gone.
type Leftovers struct {
	// Parent of the pods' cgroups, such as Pods.
	Parent string
	// mount is where the trees are; a test's own folder.
	mount string
}

func (l Leftovers) root() string {
	if l.mount != "" {
		return l.mount
	}
	return mountPoint
}

// Pods lists the UIDs of the pods that have a cgroup, each once.
func (l Leftovers) Pods() ([]string, error) {
	var out []string
	err := l.each("*", func(dir string) error {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			out = append(out, strings.TrimPrefix(filepath.Base(dir), "pod"))
		}
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// Remove kills what runs in the cgroups of a pod, and removes them. A process needs a moment to die: until then the error is EBUSY.
func (l Leftovers) Remove(uid string) error {
	if err := l.each(uid, kill); err != nil {
		return err
	}
	return removePod(l.root(), l.Parent, uid)
}

// each visits the cgroups of a pod, whichever QoS class it had.
func (l Leftovers) each(uid string, visit func(dir string) error) error {
	for _, tree := range []string{"", "*"} {
		for _, class := range []string{"", "burstable", "besteffort"} {
			dirs, err := filepath.Glob(filepath.Join(l.root(), tree, l.Parent, class, "pod"+uid))
			if err != nil {
				return fmt.Errorf("looking for the cgroups of pods: %w", err)
			}
			for _, dir := range dirs {
				if err := visit(dir); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// kill kills the processes of a cgroup and of those below it.
func kill(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("walking a cgroup: %w", err)
		case entry.IsDir() || entry.Name() != "cgroup.procs":
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil // It went meanwhile.
		}
		if err != nil {
			return fmt.Errorf("reading the processes of a cgroup: %w", err)
		}
		for _, field := range strings.Fields(string(data)) {
			// 0 stands for a process of another PID namespace, and would mean our own group.
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("killing process %d, which a pod has left: %w", pid, err)
				}
			}
		}
		return nil
	})
}
