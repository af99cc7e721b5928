// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// shimVariable makes the test's own program a process that is called a shim and does nothing.
const shimVariable = "PINNACE_SUITE_SHIM"

// disturbForgotten makes by hand what a killed containerd leaves now and then, beside what it has, and waits until the agent has ended
// the first and left the second.
func disturbForgotten(t *testing.T, w *world) error {
	// Of what is there already, containerd may be about to take away what a killed shim has left.
	others := w.traces()
	return w.around(t, sleeper, ready, func(ctx context.Context, _ *caseRun) error {
		ofPod := w.traces().without(others)
		id := func(digit string) string { return strings.Repeat(digit, 64) }
		kept, err := w.fakeShim(t, id("a"), false)
		if err != nil {
			return err
		}
		lost, err := w.fakeShim(t, id("b"), true)
		if err != nil {
			return err
		}
		if err := errors.Join(w.forget(id("c")), w.node.Restart(ctx, syscall.SIGKILL)); err != nil {
			return err
		}
		err = poll(ctx, patience, func(context.Context) error {
			var failures []error
			for what, list := range w.traces() {
				for _, entry := range list {
					if strings.Contains(entry, id("b")) || strings.Contains(entry, id("c")) || strings.Contains(entry, "cni-lost") || strings.Contains(entry, lostAddress) {
						failures = append(failures, fmt.Errorf("the agent leaves %s %s", what, entry))
					}
				}
			}
			return errors.Join(failures...)
		})
		// The other had as much time, and what the pod has too.
		if now := w.shims(); now[id("a")] != kept.Process.Pid {
			err = errors.Join(err, errors.New("the agent has ended a shim that has a folder"))
		}
		_, _ = kept.Process.Kill(), lost.Process.Kill()
		for what, list := range ofPod.without(w.traces()) {
			err = errors.Join(err, fmt.Errorf("the pod has lost of the sort %s: %v", what, list))
		}
		return err
	}, "c.main.restartCount == 0 && is.Ready == 'True' && exec('main', 'print alive') == 'alive'")
}

// fakeShim runs a process with the name and the arguments of a shim of this containerd, in a folder that stays or goes.
func (w *world) fakeShim(t *testing.T, id string, goes bool) (*exec.Cmd, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	folder, program := filepath.Join(t.TempDir(), "bundle"), filepath.Join(t.TempDir(), "containerd-shim-runc-v2")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Symlink(own, program)); err != nil {
		return nil, err
	}
	shim := exec.Command(program, "-namespace", "k8s.io", "-id", id, "-address", w.node.Config.Socket())
	shim.Dir, shim.Env = folder, append(os.Environ(), shimVariable+"=1")
	if err := shim.Start(); err != nil {
		return nil, err
	}
	go func() { _ = shim.Wait() }()
	t.Cleanup(func() { _ = shim.Process.Kill() })
	if goes {
		return shim, os.Remove(folder)
	}
	return shim, nil
}

// lostAddress is given to nobody else so soon: addresses are given out one after the other.
const lostAddress = "10.215.250.250"

// forget makes a network namespace, an address and a half removed bundle.
func (w *world) forget(id string) error {
	state := w.node.Config.State
	namespace := filepath.Join(state, "io.containerd.grpc.v1.cri", "netns", "cni-lost")
	lease := filepath.Join(state, "cni", "pinnace", lostAddress)
	bundle := filepath.Join(state, "io.containerd.runtime.v2.task", "k8s.io", "."+id)
	return errors.Join(
		os.WriteFile(namespace, nil, 0o600), mountNetns(namespace),
		os.WriteFile(lease, []byte(id+"\r\neth0"), 0o600),
		os.Mkdir(bundle, 0o700),
	)
}

// mountNetns mounts a network namespace that no process is in.
func mountNetns(path string) error {
	holder := exec.Command("sleep", "600")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := holder.Start(); err != nil {
		return err
	}
	err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid), path, "", unix.MS_BIND, "")
	return errors.Join(err, holder.Process.Kill(), ended(holder))
}

// ended waits for a process that was killed.
func ended(c *exec.Cmd) error {
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil
}
