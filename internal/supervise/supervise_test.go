// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

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
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	policy := Policy{Initial: time.Second, Max: 5 * time.Second, Limit: 5, Window: time.Minute}
	ago := func(seconds ...int) []time.Time {
		var out []time.Time
		for _, s := range seconds {
			out = append(out, now.Add(-time.Duration(s)*time.Second))
		}
		return out
	}
	for _, tc := range []struct {
		name     string
		policy   Policy
		failures []time.Time
		want     Decision
	}{
		{"first", policy, ago(0), Decision{Delay: time.Second, Recent: 1}},
		{"second doubles", policy, ago(3, 0), Decision{Delay: 2 * time.Second, Recent: 2}},
		{"third doubles again", policy, ago(9, 3, 0), Decision{Delay: 4 * time.Second, Recent: 3}},
		{"bounded", policy, ago(9, 6, 3, 0), Decision{Delay: 5 * time.Second, Recent: 4}},
		{"limit", policy, ago(12, 9, 6, 3, 0), Decision{GiveUp: true, Recent: 5}},
		{"old failures are forgotten", policy, ago(300, 200, 100, 60, 0), Decision{Delay: time.Second, Recent: 1}},
		{"no limit", Policy{Initial: time.Second, Max: 2 * time.Second, Window: time.Minute}, ago(5, 4, 3, 2, 1, 0), Decision{Delay: 2 * time.Second, Recent: 6}},
		{"never", Never, ago(0), Decision{GiveUp: true, Recent: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.policy.Decide(tc.failures, now)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	rest := "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for _, tc := range []struct {
		name, line string
		want       Identity
		state      byte
		fails      bool
	}{
		{name: "plain", line: "17 (etcd) " + rest, want: Identity{17, 4242}, state: 'S'},
		{name: "a name with parentheses and spaces", line: "17 (a) b (c) " + rest, want: Identity{17, 4242}, state: 'S'},
		{name: "cut", line: "17 (etcd) S 1 2", fails: true},
		{name: "empty", line: "", fails: true},
		{name: "no number", line: "x (etcd) " + rest, fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, state, err := parseStat([]byte(tc.line))
			if (err != nil) != tc.fails {
				t.Fatalf("error %v, want one: %v", err, tc.fails)
			}
			if got != tc.want || state != tc.state {
				t.Errorf("got %v %c, want %v %c", got, state, tc.want, tc.state)
			}
		})
	}
}

// quick restarts without much delay.
var quick = Policy{Initial: time.Millisecond, Max: 5 * time.Millisecond, Limit: 3, Window: time.Minute}

// events collects a supervisor's events for a test that waits for them.
type events chan Event

func (e events) await(t *testing.T, state State) Event {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case event := <-e:
			if event.State == state {
				return event
			}
		case <-deadline:
			t.Fatalf("there was no event %s", state)
		}
	}
}

func run(t *testing.T, p Process) (*Supervisor, events) {
	t.Helper()
	seen := make(events, 100)
	s, err := Run(t.Context(), p, Options{Policy: &quick, OnEvent: func(e Event) { seen <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, seen
}

func TestRestartsWhatWasKilled(t *testing.T) {
	dir := t.TempDir()
	s, seen := run(t, Process{Name: "sleeper", Path: "/bin/sleep", Args: []string{"1000"}, PIDFile: filepath.Join(dir, "pid")})
	first := seen.await(t, Running).PID
	if id, err := ReadPIDFile(filepath.Join(dir, "pid")); err != nil || id.PID != first || !id.Alive() {
		t.Errorf("the pid file holds %v, %v; want %d", id, err, first)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := seen.await(t, Restarting); e.Err == nil || e.Err.Error() != "signal: killed" {
		t.Errorf("the event's error is %v", e.Err)
	}
	second := seen.await(t, Running).PID
	if second == first || s.PID() != second || s.Restarts() != 1 {
		t.Errorf("pids %d, %d, now %d, restarts %d", first, second, s.PID(), s.Restarts())
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen.await(t, Stopped)
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", second, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file stayed: %v", err)
	}
}

func TestGivesUpWithTheLastLogLines(t *testing.T) {
	dir := t.TempDir()
	s, seen := run(t, Process{Name: "broken", Path: "/bin/sh", Args: []string{"-c", "echo cannot work; exit 7"}, LogFile: filepath.Join(dir, "log")})
	e := seen.await(t, Failed)
	if diff := cmp.Diff([]string{"cannot work", "cannot work", "cannot work"}, e.Log); diff != "" {
		t.Errorf("log lines (-want +got):\n%s", diff)
	}
	err := <-s.Failed()
	var gaveUp *GaveUpError
	if !errors.As(err, &gaveUp) || !strings.Contains(err.Error(), "broken is not restarted any more: it failed 3 times within 1m0s: exit status 7") {
		t.Errorf("the error is %v", err)
	}
}

func TestNeverReady(t *testing.T) {
	dir := t.TempDir()
	_, err := Run(t.Context(), Process{
		Name: "slow", Path: "/bin/sleep", Args: []string{"1000"}, PIDFile: filepath.Join(dir, "pid"),
		Ready: func(context.Context) error { return errors.New("no answer") }, StartTimeout: 100 * time.Millisecond,
	}, Options{})
	if err == nil || err.Error() != "starting slow: it was not ready within 100ms: no answer" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pid")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the process was left behind")
	}
}

func TestEndsBeforeReady(t *testing.T) {
	_, err := Run(t.Context(), Process{
		Name: "short", Path: "/bin/sh", Args: []string{"-c", "echo no luck; exit 3"}, LogFile: filepath.Join(t.TempDir(), "log"),
		Ready: func(context.Context) error { return errors.New("no answer") },
	}, Options{})
	if err == nil || !strings.Contains(err.Error(), "exit status 3; its last log lines:\n  no luck") {
		t.Errorf("got %v", err)
	}
}

func TestStopKillsWhatWontEnd(t *testing.T) {
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	s, seen := run(t, Process{
		Name: "stubborn", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; touch " + ready + "; while :; do sleep 1; done"},
		StopTimeout: 50 * time.Millisecond,
		Ready:       func(context.Context) error { _, err := os.Stat(ready); return err },
	})
	pid := seen.await(t, Running).PID
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestEndLeftover(t *testing.T) {
	start := func(t *testing.T) (pidFile string, done <-chan struct{}) {
		t.Helper()
		cmd := exec.Command("/bin/sleep", "1001")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
		pidFile = filepath.Join(t.TempDir(), "pid")
		if err := WritePIDFile(pidFile, cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		return pidFile, ended
	}
	t.Run("ours", func(t *testing.T) {
		pidFile, done := start(t)
		pid, err := EndLeftover(t.Context(), pidFile, OursByArgument("sleep", "1001"), 10*time.Second)
		if err != nil || pid == 0 {
			t.Fatalf("ended %d, %v", pid, err)
		}
		<-done
		if _, err := os.Stat(pidFile); !errors.Is(err, os.ErrNotExist) {
			t.Error("the pid file stayed")
		}
	})
	t.Run("another program", func(t *testing.T) {
		pidFile, done := start(t)
		if pid, err := EndLeftover(t.Context(), pidFile, OursByArgument("sleep", "77"), 10*time.Second); err != nil || pid != 0 {
			t.Errorf("ended %d, %v", pid, err)
		}
		select {
		case <-done:
			t.Error("a process that is not ours was ended")
		default:
		}
	})
	t.Run("the id was given to another process", func(t *testing.T) {
		pidFile, done := start(t)
		id, err := ReadPIDFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%d (sleep) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20", id.PID, id.StartTicks-1)
		if err := os.WriteFile(pidFile, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid, err := EndLeftover(t.Context(), pidFile, OursByArgument("sleep", "1001"), 10*time.Second); err != nil || pid != 0 {
			t.Errorf("ended %d, %v", pid, err)
		}
		select {
		case <-done:
			t.Error("a process with another start time was ended")
		default:
		}
	})
	t.Run("no pid file", func(t *testing.T) {
		if pid, err := EndLeftover(t.Context(), filepath.Join(t.TempDir(), "pid"), nil, 0); err != nil || pid != 0 {
			t.Errorf("ended %d, %v", pid, err)
		}
	})
}

func TestReadOnlyFileRange(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		start, end uintptr
		ok         bool
	}{
		{"text", "00400000-00500000 r-xp 00000000 fe:00 12 /bin/etcd\n", 0x400000, 0x500000, true},
		{"writable", "00400000-00500000 rw-p 00000000 fe:00 12 /bin/etcd\n", 0, 0, false},
		{"anonymous", "c000000000-c000400000 r--p 00000000 00:00 0 \n", 0, 0, false},
		{"special", "7ffd0000-7ffe0000 r-xp 00000000 00:00 0 [vdso]\n", 0, 0, false},
		{"nonsense", "x-y r-xp 0 0 0 /bin/etcd\n", 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start, end, ok := readOnlyFileRange(tc.line)
			if start != tc.start || end != tc.end || ok != tc.ok {
				t.Errorf("got %x %x %v", start, end, ok)
			}
		})
	}
}

// TestReturnFilePages sees that a process lives on without its pages.
func TestReturnFilePages(t *testing.T) {
	s, _ := run(t, Process{Name: "sleeper", Path: "/bin/sleep", Args: []string{"1000"}})
	if err := ReturnFilePages(s.PID()); errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		t.Logf("this kernel does not offer it: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if s.PID() == 0 || s.Restarts() != 0 {
		t.Error("the process died of it")
	}
}

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	write := func(s string) {
		t.Helper()
		if _, err := log.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	write("0123456789")
	if err := truncateLog(path, 10); err != nil {
		t.Fatal(err)
	}
	if got := read(path); got != "0123456789" {
		t.Errorf("a log within its bounds was cut to %q", got)
	}
	write("abcde")
	if err := truncateLog(path, 10); err != nil {
		t.Fatal(err)
	}
	write("new") // by the process, which keeps the file open
	if got := read(path); got != "new" {
		t.Errorf("the log holds %q, want what came after", got)
	}
	if got := read(path + ".1"); got != "56789abcde" {
		t.Errorf("the log before holds %q, want the last bytes", got)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := Tail(path, 3); got != nil {
		t.Errorf("no file gives %q", got)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 40<<10)+"\na\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, Tail(path, 3)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b"}, Tail(path, 1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
