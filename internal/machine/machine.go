// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Memory is how much there is, and how much of it could be had without swapping; in bytes.
func Memory() (total, available int64, err error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("reading the machine's memory: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return total, available, nil
}

// PIDs is how many threads there are, each of which has an ID, and how many there may be.
func PIDs() (used, most int64, err error) {
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		n, err := strconv.ParseInt(FirstLine(file), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading the bound of process IDs in %s: %w", file, err)
		}
		if most == 0 || n < most {
			most = n
		}
	}
	fields := strings.Fields(FirstLine("/proc/loadavg"))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("reading the number of processes: /proc/loadavg has %d fields", len(fields))
	}
	_, total, _ := strings.Cut(fields[3], "/")
	if used, err = strconv.ParseInt(total, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("reading the number of processes: %w", err)
	}
	return used, most, nil
}

// FileSystem is the space of one, in bytes and files.
type FileSystem struct {
	Device             uint64
	Size, Free         int64
	Inodes, InodesFree int64
}

// FileSystemOf is that of a path. Free is what is left for everybody but root.
func FileSystemOf(path string) (FileSystem, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return FileSystem{}, fmt.Errorf("reading the file system of %s: %w", path, err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return FileSystem{}, fmt.Errorf("reading the space of the file system of %s: %w", path, err)
	}
	return FileSystem{
		Device: stat.Dev, Size: int64(disk.Blocks) * disk.Bsize, Free: int64(disk.Bavail) * disk.Bsize,
		Inodes: int64(disk.Files), InodesFree: int64(disk.Ffree),
	}, nil
}

// DiskUsage is what a folder with all below it takes up, in bytes and files: each file once, whatever names it has, and nothing of other
// file systems. What goes away meanwhile is left out; a folder that isn't there takes up nothing.
func DiskUsage(dir string) (bytes, inodes int64, err error) {
	var device uint64
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // It has gone, or can't be read; the rest counts.
		}
		info, err := entry.Info()
		if err != nil {
			return nil //nolint:nilerr // It has gone.
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if path == dir {
			device = stat.Dev
		}
		if stat.Dev != device {
			return fs.SkipDir
		}
		if stat.Nlink > 1 && !entry.IsDir() {
			if seen[stat.Ino] {
				return nil
			}
			seen[stat.Ino] = true
		}
		bytes, inodes = bytes+stat.Blocks*512, inodes+1
		return nil
	})
	return bytes, inodes, err
}

// HugePages are the bytes that are set aside in huge pages, by their size in bytes. Sizes without any are there, too.
func HugePages() map[int64]int64 {
	out := map[int64]int64{}
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return out
	}
	for _, dir := range dirs {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB")
		size, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue
		}
		number, err := strconv.ParseInt(FirstLine(filepath.Join(dir, "nr_hugepages")), 10, 64)
		if err != nil {
			continue
		}
		out[size<<10] = size << 10 * number
	}
	return out
}

// FirstLine of a file, or nothing when it can't be read.
func FirstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}
