// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// TestUpRefusesInOneSentence shows that what can't work is said in one sentence with the way out, and that nothing is
// left half-started.
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
		if left := processesNaming(m.DataDir); len(left) > 0 {
			t.Errorf("left running: %v", left)
		}
	})
	t.Run("a data folder in use", func(t *testing.T) {
		m := newMachine(t)
		start(t, m, "--runtime", "simulated")
		wantAll(t, refused(t, m.Command("--runtime", "simulated")), fmt.Sprintf("pid %d", m.PID()), "--data-dir")
		kubectl(t, m, "get", "pno") // the first one is unharmed
	})
	t.Run("not root", func(t *testing.T) {
		m := newMachine(t)
		command := m.Command()
		if syscall.Geteuid() == 0 {
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
	t.Run("networks that overlap", func(t *testing.T) {
		wantAll(t, refused(t, newMachine(t).Command("--runtime", "simulated", "--pod-cidr", "10.240.0.0/16", "--service-cidr", "10.240.7.0/24")), "overlap", "--pod-cidr")
	})
	t.Run("missing assets", func(t *testing.T) {
		m := newMachine(t)
		wantAll(t, refused(t, m.Command("--runtime", "simulated", "--assets-dir", m.DataDir)), "make assets", "kube-apiserver")
	})
}

func wantAll(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("%q does not say %q", out, part)
		}
	}
}
