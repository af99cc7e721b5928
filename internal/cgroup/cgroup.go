// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// mountPoint is where the trees are, everywhere.
const mountPoint = "/sys/fs/cgroup"

// Pods is the parent of all pods' cgroups on a machine.
const Pods = "/pinnace"

// RemovePod removes the cgroup of a pod, whichever QoS class it had, below the parent of all pods (an absolute path within the
// trees). It must have no processes any more. Idempotent.
func RemovePod(parent, uid string) error {
	return removePod(mountPoint, parent, uid)
}

func removePod(mount, parent, uid string) error {
	trees, err := filepath.Glob(filepath.Join(mount, "*"))
	if err != nil {
		return fmt.Errorf("listing the cgroup trees: %w", err)
	}
	for _, tree := range append(trees, mount) {
		for _, class := range []string{"", "burstable", "besteffort"} {
			if err := remove(filepath.Join(tree, parent, class, "pod"+uid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveEmpty removes the parent of all pods with the cgroups of its classes, in every tree where no pod is left.
func RemoveEmpty(parent string) error { return removeEmpty(mountPoint, parent) }

func removeEmpty(mount, parent string) error {
	trees, err := filepath.Glob(filepath.Join(mount, "*"))
	if err != nil {
		return fmt.Errorf("listing the cgroup trees: %w", err)
	}
	for _, tree := range append(trees, mount) {
		for _, class := range []string{"burstable", "besteffort", ""} {
			err := syscall.Rmdir(filepath.Join(tree, parent, class))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) {
				return fmt.Errorf("removing cgroup %s: %w", filepath.Join(parent, class), err)
			}
		}
	}
	return nil
}

// remove removes a cgroup with those below it, the innermost first; its files go with it.
func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing a cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing cgroup %s: %w", dir, err)
	}
	return nil
}
