// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// facts tell what a process sees of its container, each in one line or a few.
var facts map[string]func(args []string)

func init() {
	facts = map[string]func([]string){
		"ignore": ignore, "signals": signals, "onterm": onTerm, "pause": pause, "await": await, "once": once,
		"count": count,
		"print": func(args []string) { fmt.Println(strings.Join(args, " ")) },
		"args":  func(args []string) { fmt.Println(strings.Join(args, "|")) },
		"error": func(args []string) { fmt.Fprintln(os.Stderr, strings.Join(args, " ")) },
		"env":   env, "needs": needs, "id": id, "pwd": pwd, "hostname": hostname,
		"status": func(args []string) { field("/proc/self/status", args[0]) },
		"list":   list, "stat": stat, "link": link, "exists": exists, "size": size,
		"try": try, "processes": processes, "cgroup": cgroup, "mount": mountOf, "lookup": lookup, "dial": dial,
		"sysctl": func(args []string) {
			printFile("/proc/sys/" + strings.ReplaceAll(args[0], ".", "/"))
		},
		"oom": func([]string) { printFile("/proc/self/oom_score_adj") },
	}
}

func printFile(path string) {
	data, err := os.ReadFile(path)
	check(err)
	fmt.Println(strings.TrimSpace(string(data)))
}

// env prints a variable, or all of them, sorted.
func env(args []string) {
	if len(args) > 0 {
		value, ok := os.LookupEnv(args[0])
		if !ok {
			value = "<unset>"
		}
		fmt.Println(value)
		return
	}
	all := os.Environ()
	slices.Sort(all)
	fmt.Println(strings.Join(all, "\n"))
}

// needs ends with 1 unless there is a variable of that name.
func needs(args []string) {
	if _, ok := os.LookupEnv(args[0]); !ok {
		os.Exit(1)
	}
}

func id([]string) {
	groups, err := os.Getgroups()
	check(err)
	slices.Sort(groups)
	fmt.Printf("%d:%d %s\n", os.Getuid(), os.Getgid(), strings.Trim(fmt.Sprint(slices.Compact(groups)), "[]"))
}

func pwd([]string) {
	dir, err := os.Getwd()
	check(err)
	fmt.Println(dir)
}

func hostname([]string) {
	name, err := os.Hostname()
	check(err)
	fmt.Println(name)
}

// field prints one line of a file of "Name: value" lines.
func field(path, name string) {
	data, err := os.ReadFile(path)
	check(err)
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			fmt.Println(strings.TrimSpace(value))
		}
	}
}

func describe(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return reason(err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "?"
	}
	return fmt.Sprintf("%s %d:%d", info.Mode(), owner.Uid, owner.Gid)
}

func list(args []string) {
	entries, err := os.ReadDir(args[0])
	check(err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") {
			fmt.Println(e.Name(), describe(filepath.Join(args[0], e.Name())))
		}
	}
}

func stat(args []string) { fmt.Println(describe(args[0])) }

func link(args []string) {
	target, err := os.Readlink(args[0])
	check(err)
	fmt.Println(target)
}

func exists(args []string) {
	if _, err := os.Stat(args[0]); err != nil {
		fmt.Println(args[0], "is not there")
		os.Exit(1)
	}
}

// size prints how many bytes the file system of a folder has.
func size(args []string) {
	var s syscall.Statfs_t
	check(syscall.Statfs(args[0], &s))
	fmt.Println(s.Blocks * uint64(s.Bsize))
}

// reason is what the kernel said, without the path.
func reason(err error) string {
	if err == nil {
		return "ok"
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	return err.Error()
}

// try prints ok, or why the kernel refuses.
func try(args []string) {
	what, path := args[0], args[1]
	var err error
	switch what {
	case "write":
		err = os.WriteFile(path, []byte("x"), 0o644)
	case "read":
		_, err = os.ReadFile(path)
	case "mkdir":
		err = os.Mkdir(path, 0o755)
	case "mount":
		err = syscall.Mount("tmpfs", path, "tmpfs", 0, "")
	case "chown":
		err = os.Chown(path, 1, 1)
	case "bind":
		var l net.Listener
		if l, err = net.Listen("tcp", ":"+path); err == nil {
			err = l.Close()
		}
	case "unshare":
		err = syscall.Unshare(syscall.CLONE_NEWUSER)
	case "hostname":
		err = syscall.Sethostname([]byte(path))
	case "fill":
		err = fill(path, args[2])
	}
	fmt.Println(reason(err))
}

func fill(path, mib string) error {
	n, err := strconv.Atoi(mib)
	check(err)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for range n {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

func processes([]string) {
	paths, err := filepath.Glob("/proc/[0-9]*/comm")
	check(err)
	var names []string
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil {
			names = append(names, strings.TrimSpace(string(data)))
		}
	}
	slices.Sort(names)
	fmt.Println(strings.Join(names, " "))
}

// cgroup prints a limit in the same unit for both versions of cgroups: memory in bytes, cpu in millicores, shares as cgroup v1 has
// them; "max" without a limit.
func cgroup(args []string) {
	v2 := "/sys/fs/cgroup/cgroup.controllers"
	if _, err := os.Stat(v2); err == nil {
		cgroupTwo(args[0])
		return
	}
	switch args[0] {
	case "memory":
		if n := number("/sys/fs/cgroup/memory/memory.limit_in_bytes"); n < 1<<60 {
			fmt.Println(n)
			return
		}
		fmt.Println("max")
	case "cpu":
		if quota := number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); quota > 0 {
			fmt.Println(quota * 1000 / number("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
			return
		}
		fmt.Println("max")
	case "shares":
		fmt.Println(number("/sys/fs/cgroup/cpu/cpu.shares"))
	}
}

func cgroupTwo(what string) {
	switch what {
	case "memory":
		printFile("/sys/fs/cgroup/memory.max")
	case "cpu":
		data, err := os.ReadFile("/sys/fs/cgroup/cpu.max")
		check(err)
		parts := strings.Fields(string(data))
		if parts[0] == "max" {
			fmt.Println("max")
			return
		}
		quota, err := strconv.Atoi(parts[0])
		check(err)
		period, err := strconv.Atoi(parts[1])
		check(err)
		fmt.Println(quota * 1000 / period)
	case "shares":
		// The runtime's own rule, backwards: weight = 1 + (shares-2)*9999/262142.
		fmt.Println((number("/sys/fs/cgroup/cpu.weight")-1)*262142/9999 + 2)
	}
}

func number(path string) int64 {
	data, err := os.ReadFile(path)
	check(err)
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	check(err)
	return n
}

// mountOf prints of the mount at a path: its type, ro or rw, and its propagation.
func mountOf(args []string) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	check(err)
	out := "no mount"
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if len(fields) < 6 || fields[4] != args[0] {
			continue
		}
		mode, _, _ := strings.Cut(fields[5], ",")
		propagation := "private"
		for _, tag := range fields[6:] {
			name, _, _ := strings.Cut(tag, ":")
			switch name {
			case "shared":
				propagation = "shared"
			case "master":
				if propagation != "shared" {
					propagation = "slave"
				}
			}
		}
		out = rest[0] + " " + mode + " " + propagation
	}
	fmt.Println(out)
}

func lookup(args []string) {
	addresses, err := net.LookupHost(args[0])
	check(err)
	slices.Sort(addresses)
	fmt.Println(strings.Join(addresses, " "))
}

func dial(args []string) {
	connection, err := net.DialTimeout("tcp", args[0], 2*time.Second)
	if err != nil {
		fmt.Println(reason(err))
		return
	}
	fmt.Println("ok")
	_ = connection.Close() // nothing was sent
}
