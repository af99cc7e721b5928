// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// TestUpRefusesInOneSentence shows that what can't work is said in one sentence with the way out, and that nothing is
// left half-started. It goes before the stories that run in parallel: beside a machine with containers another is refused for that.
func TestUpRefusesInOneSentence(t *testing.T) {
	t.Run("a taken port", func(t *testing.T) {
		m := newMachine(t)
		taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", m.APIPort))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }()
		out := refused(t, m.Command("--runtime", "simulated"))
		wantAll(t, out, fmt.Sprint(m.APIPort), "--api-port")
		wantNothing(t, m)
	})
	t.Run("not root", func(t *testing.T) {
		m := newMachine(t)
		command := m.Command()
		if syscall.Geteuid() == 0 {
			command.Path = publicCopy(t, command.Path)
			command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if err := syscall.Chown(m.DataDir, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
		wantAll(t, refused(t, command), "root", "--runtime simulated")
	})
	t.Run("a runtime that isn't known", func(t *testing.T) {
		wantAll(t, refused(t, newMachine(t).Command("--runtime", "docker")), "docker", "containerd", "simulated")
	})
	t.Run("a runtime that isn't there", func(t *testing.T) {
		if syscall.Geteuid() != 0 {
			t.Skip("SKIPPED: without root, that is what is said")
		}
		m := newMachine(t)
		wantAll(t, refused(t, m.Command("--runtime-endpoint", "unix://"+m.DataDir+"/none.sock")), "no container runtime at "+m.DataDir+"/none.sock", "--runtime-endpoint")
		wantNothing(t, m)
	})
	t.Run("a taken port of the registry", func(t *testing.T) {
		if syscall.Geteuid() != 0 {
			t.Skip("SKIPPED: without root, that is what is said")
		}
		m := newMachine(t)
		taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", m.RegistryPort))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }()
		wantAll(t, refused(t, m.Command("--nodes", "2")), fmt.Sprint(m.RegistryPort), "--registry-port")
		wantNothing(t, m)
	})
	t.Run("a full disk", func(t *testing.T) { refuseFullDisk(t) })
	t.Run("networks that overlap", func(t *testing.T) {
		wantAll(t, refused(t, newMachine(t).Command("--runtime", "simulated", "--pod-cidr", "10.240.0.0/16", "--service-cidr", "10.240.7.0/24")), "overlap", "--pod-cidr")
	})
	t.Run("missing assets", func(t *testing.T) {
		m := newMachine(t)
		wantAll(t, refused(t, m.Command("--runtime", "simulated", "--assets-dir", m.DataDir)), "make assets", "kube-apiserver")
	})
}

// publicCopy is a copy of a program where every user can run it: the checkout may lie in root's own folder.
func publicCopy(t *testing.T, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pinnace-e2e-program-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, filepath.Base(program))
	if err := errors.Join(os.WriteFile(path, data, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantAll(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("%q does not say %q", out, part)
		}
	}
}

// wantNothing looks for what a refused start has left.
func wantNothing(t *testing.T, m *machine.Machine) {
	t.Helper()
	if left := processesNaming(m.DataDir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if entries, _ := os.ReadDir(filepath.Join(m.DataDir, "nodes")); len(entries) > 0 {
		t.Errorf("nodes are begun: %v", entries)
	}
}

// refuseFullDisk needs root for a small disk of its own.
func refuseFullDisk(t *testing.T) {
	if syscall.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting a small disk needs root")
	}
	m := newMachine(t)
	if err := syscall.Mount("tmpfs", m.DataDir, "tmpfs", 0, "size=50m"); err != nil {
		t.Skipf("SKIPPED: no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(m.DataDir, 0); err != nil {
			t.Error(err)
		}
	})
	wantAll(t, refused(t, m.Command("--runtime", "simulated")), m.DataDir, "MB left", "--data-dir")
	wantNothing(t, m)
}
