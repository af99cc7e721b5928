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
// it gives up this process' mapping of them, nothing else.
func ReturnOwnFilePages() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("reading our own mappings: %w", err)
	}
	var errs []error
	for line := range strings.Lines(string(maps)) {
		start, end, ok := readOnlyFileRange(line)
		if !ok {
			continue
		}
		// Read-only pages of a file have nothing that could be lost.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, errno)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("returning our own file pages: %w", err)
	}
	return nil
}
