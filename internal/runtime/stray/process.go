// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package stray

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is what /proc/PID/stat says.
type process struct {
	pid, parent int
	// command is the program's name, of at most 15 characters.
	command string
	// started is in ticks since the machine's start; it and the PID are one process for good.
	started uint64
}

// ticks of /proc are a hundredth of a second on every platform.
const tick = 10 * time.Millisecond

func (f *Finder) root() string {
	if f.proc != "" {
		return f.proc
	}
	return "/proc"
}

func (f *Finder) processes() ([]process, error) {
	entries, err := os.ReadDir(f.root())
	if err != nil {
		return nil, fmt.Errorf("listing the processes: %w", err)
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := f.process(pid); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// process reads one; ok is false for one that is gone.
func (f *Finder) process(pid int) (process, bool) {
	data, err := os.ReadFile(filepath.Join(f.root(), strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	return parseStat(pid, string(data))
}

// parseStat reads "PID (command) state parent …"; the command may hold anything, parentheses too.
func parseStat(pid int, text string) (process, bool) {
	_, rest, ok := strings.Cut(text, "(")
	end := strings.LastIndex(rest, ")")
	if !ok || end < 0 {
		return process{}, false
	}
	const parent, started = 1, 19 // Fields 4 and 22 of proc_pid_stat(5), after the command.
	fields := strings.Fields(rest[end+1:])
	if len(fields) <= started {
		return process{}, false
	}
	p := process{pid: pid, command: rest[:end]}
	var err, err2 error
	p.parent, err = strconv.Atoi(fields[parent])
	p.started, err2 = strconv.ParseUint(fields[started], 10, 64)
	return p, err == nil && err2 == nil
}

// shims are those of the containerd with that socket.
func (f *Finder) shims(all []process, socket string, info fs.FileInfo) []Shim {
	parents := map[int]bool{}
	for _, p := range all {
		parents[p.parent] = true
	}
	uptime := f.uptime()
	var out []Shim
	for _, p := range all {
		if !strings.HasPrefix(p.command, "containerd-shim") {
			continue
		}
		if s, ok := f.shim(p.pid, socket, info); ok {
			s.Age, s.Busy = max(0, uptime-time.Duration(p.started)*tick), parents[p.pid]
			out = append(out, s)
		}
	}
	return out
}

// shim reads what a shim serves. Another containerd, in a container, may have a socket of the same name: it is another file.
func (f *Finder) shim(pid int, socket string, info fs.FileInfo) (Shim, bool) {
	dir := filepath.Join(f.root(), strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Shim{}, false
	}
	id, address, ok := parseCommand(string(cmdline))
	if !ok || address != socket {
		return Shim{}, false
	}
	if its, err := os.Stat(filepath.Join(dir, "root", address)); err != nil || !os.SameFile(its, info) {
		return Shim{}, false
	}
	folder, err := os.Readlink(filepath.Join(dir, "cwd"))
	if err != nil {
		return Shim{}, false
	}
	return Shim{PID: pid, ID: id, Folderless: strings.HasSuffix(folder, " (deleted)")}, true
}

// parseCommand reads the command line of a shim that serves CRI. One that has an action, such as start or delete, is a short-lived
// helper and no shim.
func parseCommand(cmdline string) (id, address string, ok bool) {
	args := strings.Split(strings.TrimSuffix(cmdline, "\x00"), "\x00")
	values := map[string]string{}
	for i := 1; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		switch {
		case !isFlag:
			return "", "", false
		case name == "debug":
		case i+1 == len(args):
			return "", "", false
		default:
			i++
			values[name] = args[i]
		}
	}
	return values["id"], values["address"], values["namespace"] == namespace && values["id"] != "" && filepath.IsAbs(values["address"])
}

func (f *Finder) uptime() time.Duration {
	data, err := os.ReadFile(filepath.Join(f.root(), "uptime"))
	if err != nil {
		return 0
	}
	text, _, _ := strings.Cut(string(data), " ")
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// markUsed marks the namespaces that processes are in.
func (f *Finder) markUsed(files []Netns, all []process) {
	if len(files) == 0 {
		return
	}
	inUse := map[[2]uint64]bool{}
	for _, p := range all {
		if key, ok := identity(filepath.Join(f.root(), strconv.Itoa(p.pid), "ns", "net")); ok {
			inUse[key] = true
		}
	}
	for i := range files {
		key, ok := identity(files[i].Path)
		files[i].Used = ok && inUse[key]
	}
}

func identity(path string) ([2]uint64, bool) {
	var s unix.Stat_t
	err := unix.Stat(path, &s)
	return [2]uint64{s.Dev, s.Ino}, err == nil
}

// endWithin is how long a shim has to end by itself, in which it removes its socket.
const endWithin = 2 * time.Second

// EndShim ends a shim, if its PID is still that same shim and still has neither folder nor processes. It returns when the shim has ended.
func (f *Finder) EndShim(ctx context.Context, s Shim) error {
	info, err := f.Info(ctx)
	if err != nil {
		return fmt.Errorf("asking the runtime where it has its things: %w", err)
	}
	l, ok := readLayout(info)
	if !ok {
		return nil
	}
	socket, err := os.Stat(l.socket)
	if err != nil {
		return fmt.Errorf("looking at the runtime's socket: %w", err)
	}
	// The handle first: what is read of the PID after it is read of the process that gets the signal.
	handle, err := unix.PidfdOpen(s.PID, 0)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("taking hold of the shim %d: %w", s.PID, err)
	}
	defer func() { _ = unix.Close(handle) }()
	all, err := f.processes()
	if err != nil {
		return err
	}
	same := func(now Shim) bool { return now.PID == s.PID && now.ID == s.ID && now.Folderless && !now.Busy }
	if !slices.ContainsFunc(f.shims(all, l.socket, socket), same) {
		return nil
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := unix.PidfdSendSignal(handle, signal, nil, 0); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending the shim %d, which the runtime has forgotten: %w", s.PID, err)
		}
		if ended(handle, endWithin) {
			return nil
		}
	}
	return fmt.Errorf("the shim %d, which the runtime has forgotten, doesn't end", s.PID)
}

// ended waits for the end of a process, which makes its handle readable.
func ended(handle int, within time.Duration) bool {
	deadline := time.Now().Add(within)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}
