// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A pid file holds the process' line of /proc/PID/stat as it was at the start.
// The line carries the start time, so that another process which got the same
// id later is never taken for ours. A shell can write it:
//
//	cat "/proc/$$/stat" > FILE

// Identity tells a process apart from all others since the machine's start.
type Identity struct {
	PID int
	// StartTicks is the start time in clock ticks since boot: field 22 of
	// proc_pid_stat(5).
	StartTicks uint64
}

// parseStat reads the identity and the state letter from a line of
// /proc/PID/stat. The program's name may hold spaces and parentheses, so the
// fields are counted from the last parenthesis.
func parseStat(line []byte) (Identity, byte, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return Identity{}, 0, errors.New("no program name in the line")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:open])))
	if err != nil {
		return Identity{}, 0, fmt.Errorf("reading the process id: %w", err)
	}
	fields := strings.Fields(string(line[end+1:]))
	const startTime = 22 - 3 // the fields after the name begin with number 3
	if len(fields) <= startTime {
		return Identity{}, 0, fmt.Errorf("only %d fields after the program's name", len(fields))
	}
	ticks, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return Identity{}, 0, fmt.Errorf("reading the start time: %w", err)
	}
	return Identity{PID: pid, StartTicks: ticks}, fields[0][0], nil
}

// ReadPIDFile returns the identity that a pid file holds.
func ReadPIDFile(path string) (Identity, error) {
	line, err := os.ReadFile(path)
	if err != nil {
		return Identity{}, fmt.Errorf("reading the pid file: %w", err)
	}
	id, _, err := parseStat(line)
	if err != nil {
		return Identity{}, fmt.Errorf("reading the pid file %s: %w", path, err)
	}
	return id, nil
}

// WritePIDFile records a running process.
func WritePIDFile(path string, pid int) error {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return fmt.Errorf("looking at process %d: %w", pid, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the folder of the pid file: %w", err)
	}
	if err := os.WriteFile(path, line, 0o600); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	return nil
}

// state is the process' letter in /proc/PID/stat, or 0 when it is gone.
func (id Identity) state() byte {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id.PID), "stat"))
	if err != nil {
		return 0
	}
	now, state, err := parseStat(line)
	if err != nil || now != id {
		return 0
	}
	return state
}

// Alive tells whether the process still runs. A process that ended but was
// not waited for by its parent (a zombie) does not.
func (id Identity) Alive() bool {
	state := id.state()
	return state != 0 && state != 'Z' && state != 'X'
}

// CommandLine returns the arguments with which the process was started.
func (id Identity) CommandLine() ([]string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id.PID), "cmdline"))
	if err != nil {
		return nil, fmt.Errorf("reading the command line of process %d: %w", id.PID, err)
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"), nil
}

// Done returns a channel that is closed when the process has ended. It needs
// no parenthood: it waits on a pidfd, and where the kernel has none, it looks
// four times a second.
func (id Identity) Done() <-chan struct{} {
	done := make(chan struct{})
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err == nil && id.state() == 0 { // the pidfd may be another process'
		_ = unix.Close(fd)
		close(done)
		return done
	}
	go func() {
		defer close(done)
		if err == nil {
			defer unix.Close(fd)
			for {
				_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
				if !errors.Is(err, unix.EINTR) {
					return
				}
			}
		}
		for id.Alive() {
			time.Sleep(250 * time.Millisecond)
		}
	}()
	return done
}

// End stops the process with SIGTERM, and with SIGKILL when the grace is over
// or the context ends. It returns when the process is gone.
func (id Identity) End(ctx context.Context, grace time.Duration) error {
	return id.end(ctx, grace, !id.Alive())
}

func (id Identity) end(ctx context.Context, grace time.Duration, ending bool) error {
	if ending {
		return id.settle()
	}
	done := id.Done()
	if err := syscall.Kill(id.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending process %d: %w", id.PID, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := syscall.Kill(id.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing process %d: %w", id.PID, err)
	}
	return id.settle()
}

// settle waits until a process that was killed has let go of its ports and
// locks. While its threads end one by one it looks like a zombie already.
func (id Identity) settle() error {
	select {
	case <-id.Done():
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("process %d is still there 10 s after it was killed; it may hang in the kernel: look at /proc/%d/stack", id.PID, id.PID)
	}
}

// EndLeftover ends the process that a pid file names, when it still runs and
// its command line is ours by the given test, and removes the pid file. It
// returns the id of the process that it ended, or 0. A missing or unreadable
// pid file, or one of a process that is gone or isn't ours, ends nothing.
func EndLeftover(ctx context.Context, pidFile string, ours func(commandLine []string) bool, grace time.Duration) (int, error) {
	id, err := ReadPIDFile(pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	ended := 0
	if err == nil && id.state() != 0 {
		line, lineErr := id.CommandLine()
		// A process that is just ending has lost its memory, and so its command
		// line, before it lets go of its ports.
		ending := !id.Alive() || lineErr == nil && line[0] == ""
		if ending || lineErr == nil && ours(line) {
			if err := id.end(ctx, grace, ending); err != nil {
				return 0, fmt.Errorf("ending the leftover of an earlier run: %w", err)
			}
			if !ending {
				ended = id.PID
			}
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return ended, fmt.Errorf("removing the old pid file: %w", err)
	}
	return ended, nil
}
