// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/test/machine"
)

// shimVariable makes the test's own program a process that is called a shim and does nothing.
const shimVariable = "PINNACE_E2E_SHIM"

// forgottenShim runs a process with the name and the arguments of a shim of the first node's containerd, whose folder is gone.
func forgottenShim(t *testing.T, m *machine.Machine) {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder, program := filepath.Join(t.TempDir(), "bundle"), filepath.Join(t.TempDir(), "containerd-shim-runc-v2")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Symlink(own, program)); err != nil {
		t.Fatal(err)
	}
	socket := containerd.ForNode(filepath.Join(m.DataDir, "nodes", "node-1"), "").Socket()
	shim := exec.Command(program, "-namespace", "k8s.io", "-id", "forgotten", "-address", socket)
	shim.Dir, shim.Env = folder, append(os.Environ(), shimVariable+"=1")
	if err := errors.Join(shim.Start(), os.Remove(folder)); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = shim.Wait() // A signal is an error, too.
		close(gone)
	}()
	t.Cleanup(func() {
		select {
		case <-gone:
		default:
			t.Error("a shim that containerd has forgotten is left")
			_ = shim.Process.Kill()
		}
	})
}

// checkNothingLeft stops without --keep-pods and looks for what should have gone with it.
func checkNothingLeft(t *testing.T, m *machine.Machine) {
	t.Helper()
	if len(cgroups(t, m)) == 0 {
		t.Error("the pods' cgroups aren't where they were looked for")
	}
	stop(t, m)
	eventually(t, 20*time.Second, func() error {
		if left := processesNaming(m.DataDir); len(left) > 0 {
			return fmt.Errorf("processes are left: %v", left)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, m.DataDir) {
				return fmt.Errorf("a mount is left: %s", line)
			}
		}
		return nil
	})
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil || strings.Contains(string(out), "pinnace") || strings.Contains(string(out), "pn-") {
		t.Errorf("packet rules are left: %s (%v)", out, err)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Name == "pinnace0" || strings.HasPrefix(i.Name, "pn-") {
			t.Errorf("the interface %s is left", i.Name)
		}
	}
	if left := cgroups(t, m); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	if left, _ := filepath.Glob("/run/netns/pn-*"); len(left) > 0 {
		t.Errorf("network namespaces are left: %v", left)
	}
}

// cgroups are the parents of the first node's pods, in each hierarchy; internal/up names them after the node's folder.
func cgroups(t *testing.T, m *machine.Machine) []string {
	t.Helper()
	sum := sha256.Sum256([]byte(filepath.Join(m.DataDir, "nodes", "node-1")))
	name := "pinnace-" + hex.EncodeToString(sum[:4])
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// processesNaming lists the processes that have a text on their command line or are below a folder's containerd.
func processesNaming(text string) []string {
	var out []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), text) && filepath.Dir(file) != fmt.Sprintf("/proc/%d", os.Getpid()) {
			out = append(out, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return out
}
