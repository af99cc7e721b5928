// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// netnsDir is where named network namespaces are kept, as iproute2 has it (`ip netns list` shows them).
const netnsDir = "/run/netns"

// NetnsPath is the file that holds a named network namespace.
func NetnsPath(name string) string { return filepath.Join(netnsDir, name) }

// InNetns calls f on a thread in the network namespace of the given file. Sockets that f opens stay there; goroutines
// that it starts do not.
func InNetns(path string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		// Without unlocking, the thread ends with this goroutine: whatever happens, none goes on in a foreign namespace.
		result <- func() error {
			file, err := openNetns(path)
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the network namespace %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-result
}

// EnterCommand returns the command that runs a program in a network namespace. `ip netns exec` is no way to do it: it
// mounts a new /sys, in which the cgroups are missing.
func EnterCommand(path, program string, args ...string) (string, []string, error) {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return "", nil, errors.New("the program nsenter is missing: install util-linux")
	}
	return nsenter, append([]string{"--net=" + path, "--", program}, args...), nil
}

// ensureNetns makes a named network namespace if there is none. made says whether it did.
func ensureNetns(name string) (made bool, err error) {
	path := NetnsPath(name)
	if isNetns(path) {
		return false, nil
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return false, fmt.Errorf("making the folder of network namespaces: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return false, fmt.Errorf("making the network namespace %s: %w", name, err)
	}
	if err := file.Close(); err != nil {
		return false, fmt.Errorf("making the network namespace %s: %w", name, err)
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // The thread ends with this goroutine; the mount keeps the namespace.
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "none", unix.MS_BIND, "")
		}()
	}()
	if err := <-result; err != nil {
		_ = os.Remove(path)
		if errors.Is(err, unix.EPERM) {
			return false, fmt.Errorf("making the network namespace %s needs root: %w", name, err)
		}
		return false, fmt.Errorf("making the network namespace %s: %w", name, err)
	}
	return true, nil
}

// isNetns tells a namespace from the plain file that a reboot or a crash leaves.
func isNetns(path string) bool {
	var info unix.Statfs_t
	if err := unix.Statfs(path, &info); err != nil {
		return false
	}
	return info.Type == unix.NSFS_MAGIC
}

// removeNetns lets a named namespace go; it lives on while processes are in it. Missing is fine.
func removeNetns(name string) error {
	path := NetnsPath(name)
	if isNetns(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("removing the network namespace %s: %w", name, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the network namespace %s: %w", name, err)
	}
	return nil
}

func openNetns(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	return file, nil
}
