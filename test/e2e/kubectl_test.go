// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"cmp"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// atOnce is how many stories run side by side at least: one may wait for another (see counting).
const atOnce = "3"

func TestMain(m *testing.M) {
	if os.Getenv(shimVariable) != "" {
		_ = unix.Pause() // It is ended by a signal.
		os.Exit(0)
	}
	flag.Parse()
	if runtime.GOMAXPROCS(0) < 3 {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// pod is what must not change while other processes come and go.
type pod struct{ name, uid, ip, container, restarts string }

func kubectl(t *testing.T, m *machine.Machine, args ...string) string {
	t.Helper()
	out, err := m.Kubectl(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func pinnace(t *testing.T, m *machine.Machine, args ...string) string {
	t.Helper()
	out, err := m.Pinnace(t.Context(), "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pods are the sample's, by name, none of them terminating.
func pods(t *testing.T, m *machine.Machine) []pod {
	t.Helper()
	list, err := listPods(t, m)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func listPods(t *testing.T, m *machine.Machine) ([]pod, error) {
	out, err := m.Kubectl(t.Context(), "", "get", "ppo", "-n", "hello", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	if err != nil {
		return nil, err
	}
	var list []pod
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 5 {
			list = append(list, pod{f[0], f[1], f[2], f[3], f[4]})
		} else {
			list = append(list, pod{name: strings.TrimSpace(line)})
		}
	}
	slices.SortFunc(list, func(a, b pod) int { return cmp.Compare(a.name, b.name) })
	return list, nil
}

// eventually asks until there is no error, and fails with the last one at the deadline.
func eventually(t *testing.T, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.After(timeout)
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %s: %v", timeout, err)
		case <-t.Context().Done():
			t.Fatalf("the test ended: %v", err)
		case <-ticker.C:
		}
	}
}

// saveLogs prints the end of each log of a machine that failed its test, since its folder goes.
func saveLogs(t *testing.T, dir string) {
	for _, pattern := range []string{"log/*.log", "nodes/*/containerd/*.log"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil || strings.HasSuffix(file, "audit.log") {
				continue
			}
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			t.Logf("--- the end of %s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
		}
	}
}

// refused runs a command that must fail, and returns what it said.
func refused(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	if err := command.Wait(); err == nil {
		t.Errorf("it succeeded:\n%s", out.String())
	}
	return out.String()
}
