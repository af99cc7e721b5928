// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReturnFilePages gives back the memory with which a process has its program
// and read-only files mapped: those pages that it needs again are read again,
// from the page cache or the disk. A large Go program touches most of its file
// while it starts and a small part later.
//
// Pages that another process has mapped too, such as of the same program,
// stay. It needs Linux 5.10 and, for a process other than a child of the same
// user, CAP_SYS_NICE; the error tells where that is missing, and nothing is
// lost but the saving.
func ReturnFilePages(pid int) error {
	maps, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "maps"))
	if err != nil {
		return fmt.Errorf("reading the mappings of process %d: %w", pid, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	var errs []error
	for line := range strings.Lines(string(maps)) {
		start, end, ok := readOnlyFileRange(line)
		if !ok {
			continue
		}
		// The kernel's struct iovec: an address in the other process and a length.
		vector := [2]uintptr{start, end - start}
		_, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&vector)), 1, unix.MADV_PAGEOUT, 0, 0)
		if errno != 0 {
			errs = append(errs, errno)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("returning the file pages of process %d: %w", pid, err)
	}
	return nil
}

// readOnlyFileRange is pure: it reads a line of /proc/PID/maps and says
// whether the range is a file's that the process cannot write.
func readOnlyFileRange(line string) (start, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || strings.Contains(fields[1], "w") {
		return 0, 0, false
	}
	from, to, found := strings.Cut(fields[0], "-")
	if !found {
		return 0, 0, false
	}
	a, errA := strconv.ParseUint(from, 16, 64)
	b, errB := strconv.ParseUint(to, 16, 64)
	if errA != nil || errB != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b), true
}

// ReturnOwnFilePages does the same for the calling process, and works for pages that other processes have mapped too:
// it gives up this process' mapping of them, nothing else. A range in which the loader has written, such as that of
// relocations in a dynamically linked program, is left alone: what was written there isn't in the file.
func ReturnOwnFilePages() error {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("reading our own mappings: %w", err)
	}
	var errs []error
	for _, r := range untouchedFileRanges(string(smaps)) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r[0], r[1]-r[0], unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, errno)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("returning our own file pages: %w", err)
	}
	return nil
}

// untouchedFileRanges is pure: it reads /proc/PID/smaps and returns the ranges of files that the process can't write
// and of which it holds no page of its own.
func untouchedFileRanges(smaps string) [][2]uintptr {
	var out [][2]uintptr
	var start, end uintptr
	open := false
	for line := range strings.Lines(smaps) {
		if first, _, _ := strings.Cut(line, " "); strings.Contains(first, "-") && !strings.HasSuffix(first, ":") {
			start, end, open = readOnlyFileRange(line)
			continue
		}
		if kB, found := strings.CutPrefix(line, "Anonymous:"); found && open && strings.TrimSpace(kB) == "0 kB" {
			out = append(out, [2]uintptr{start, end})
		}
	}
	return out
}
