// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Numbers of the CFS scheduler: the kernel's bounds of shares, and the kubelet's period (pkg/kubelet/cm/helpers_linux.go).
const (
	SharesLeast = 2
	SharesMost  = 262144
	// Period is in microseconds; QuotaLeast is the kernel's least quota within it.
	Period     = 100000
	QuotaLeast = 1000
)

// Unlimited takes a limit away.
const Unlimited = -1

// Limits of a cgroup. What is zero is left as it is.
type Limits struct {
	// CPUShares are in version 1's unit: 1024 for each core. Version 2 gets the weight that stands for them.
	CPUShares int64
	// CPUQuota is in microseconds for each Period.
	CPUQuota int64
	// Memory is in bytes.
	Memory int64
	// PIDs is how many processes and threads there may be.
	PIDs int64
	// HugePages are bytes by the size of the page in bytes; here zero forbids them. Sizes that the kernel doesn't have are left out.
	HugePages map[int64]int64
}

// Shares are the CPU shares that stand for thousandths of a core.
func Shares(milli int64) int64 {
	return min(max(milli*1024/1000, SharesLeast), SharesMost)
}

// Quota is the CPU quota that stands for thousandths of a core; 0 for none.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*Period/1000, QuotaLeast)
}

// Apply makes the cgroup (an absolute path within the trees) with those above it, and sets its limits. It is idempotent. A controller
// that this machine doesn't have is passed over.
func Apply(path string, l Limits) error { return apply(mountPoint, path, l) }

func apply(mount, path string, l Limits) error {
	if unified(mount) {
		return applyUnified(mount, path, l)
	}
	return applyTrees(mount, path, l)
}

// unified says that all controllers are in one tree, which is version 2 alone.
func unified(mount string) bool {
	_, err := os.Stat(filepath.Join(mount, "cgroup.controllers"))
	return err == nil
}

// setting is one file of a cgroup.
type setting struct{ file, value string }

func applyTrees(mount, path string, l Limits) error {
	cpu := []setting{}
	if l.CPUShares != 0 {
		cpu = append(cpu, setting{"cpu.shares", number(l.CPUShares)})
	}
	if l.CPUQuota != 0 {
		cpu = append(cpu, setting{"cpu.cfs_period_us", number(Period)}, setting{"cpu.cfs_quota_us", number(l.CPUQuota)})
	}
	trees := map[string][]setting{"cpu": cpu, "memory": nil, "pids": nil, "hugetlb": nil}
	if l.Memory != 0 {
		trees["memory"] = []setting{{"memory.limit_in_bytes", number(l.Memory)}}
	}
	if l.PIDs != 0 {
		trees["pids"] = []setting{{"pids.max", most(l.PIDs)}}
	}
	for _, size := range pageSizes {
		if limit, ok := l.HugePages[size.bytes]; ok {
			trees["hugetlb"] = append(trees["hugetlb"], setting{"hugetlb." + size.name + ".limit_in_bytes", number(limit)})
		}
	}
	for tree, settings := range trees {
		root := filepath.Join(mount, tree)
		if _, err := os.Stat(root); err != nil {
			continue // This machine doesn't have the controller.
		}
		dir := filepath.Join(root, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the cgroup %s: %w", path, err)
		}
		if err := write(dir, settings); err != nil {
			return err
		}
	}
	return nil
}

func applyUnified(mount, path string, l Limits) error {
	if err := makeUnified(mount, path); err != nil {
		return err
	}
	var all []setting
	if l.CPUShares != 0 {
		all = append(all, setting{"cpu.weight", number(weight(l.CPUShares))})
	}
	if l.CPUQuota != 0 {
		all = append(all, setting{"cpu.max", most(l.CPUQuota) + " " + number(Period)})
	}
	if l.Memory != 0 {
		all = append(all, setting{"memory.max", most(l.Memory)})
	}
	if l.PIDs != 0 {
		all = append(all, setting{"pids.max", most(l.PIDs)})
	}
	for _, size := range pageSizes {
		if limit, ok := l.HugePages[size.bytes]; ok {
			all = append(all, setting{"hugetlb." + size.name + ".max", most(limit)})
		}
	}
	return write(filepath.Join(mount, path), all)
}

// makeUnified makes a cgroup of version 2: each one above it must hand its controllers down.
func makeUnified(mount, path string) error {
	dir := mount
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		for _, controller := range []string{"cpu", "memory", "pids", "cpuset", "io", "hugetlb"} {
			// One at a time: a machine that lacks one has the others all the same.
			err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
			if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EINVAL) {
				return fmt.Errorf("handing the controller %s down to %s: %w", controller, path, err)
			}
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making the cgroup %s: %w", path, err)
		}
	}
	return nil
}

// write sets what differs from what is there: reading is cheap, and a write makes the kernel walk the tree.
func write(dir string, settings []setting) error {
	for _, s := range settings {
		file := filepath.Join(dir, s.file)
		now, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // The kernel doesn't have it, such as a size of huge pages.
		}
		if err == nil && strings.TrimSpace(string(now)) == s.value {
			continue
		}
		if err := os.WriteFile(file, []byte(s.value), 0o644); err != nil {
			return fmt.Errorf("setting %s to %s: %w", file, s.value, err)
		}
	}
	return nil
}

// weight is version 2's for version 1's shares, as runc converts them: 2 is 1, 1024 is 39, 262144 is 10000.
func weight(shares int64) int64 {
	return 1 + (min(max(shares, SharesLeast), SharesMost)-2)*9999/262142
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// most is a limit as version 2 writes it.
func most(n int64) string {
	if n < 0 {
		return "max"
	}
	return number(n)
}

// pageSizes are those of the platforms that Linux has huge pages on, as they stand in the names of files.
var pageSizes = []struct {
	name  string
	bytes int64
}{
	{"64KB", 64 << 10}, {"1MB", 1 << 20}, {"2MB", 2 << 20}, {"16MB", 16 << 20}, {"32MB", 32 << 20},
	{"512MB", 512 << 20}, {"1GB", 1 << 30}, {"16GB", 16 << 30},
}

// Memory is what the processes of a cgroup hold, in bytes.
type Memory struct {
	// Usage is all of it, WorkingSet what can't be given back at once: without files that haven't been used lately.
	Usage, WorkingSet int64
}

// ReadMemory reads what a cgroup holds. It returns an error that is fs.ErrNotExist when there is no such cgroup.
func ReadMemory(path string) (Memory, error) { return readMemory(mountPoint, path) }

func readMemory(mount, path string) (Memory, error) {
	dir, usage, inactive := filepath.Join(mount, "memory", path), "memory.usage_in_bytes", "total_inactive_file"
	if unified(mount) {
		dir, usage, inactive = filepath.Join(mount, path), "memory.current", "inactive_file"
	}
	used, err := readNumber(filepath.Join(dir, usage))
	if err != nil {
		return Memory{}, err
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return Memory{}, fmt.Errorf("reading the memory of cgroup %s: %w", path, err)
	}
	out := Memory{Usage: used, WorkingSet: used}
	for line := range strings.Lines(string(stat)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == inactive {
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				out.WorkingSet = max(0, used-n)
			}
		}
	}
	return out, nil
}

// ReadPIDs reads how many processes and threads a cgroup has.
func ReadPIDs(path string) (int64, error) { return readPIDs(mountPoint, path) }

func readPIDs(mount, path string) (int64, error) {
	dir := filepath.Join(mount, "pids", path)
	if unified(mount) {
		dir = filepath.Join(mount, path)
	}
	return readNumber(filepath.Join(dir, "pids.current"))
}

func readNumber(file string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading a cgroup: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", file, err)
	}
	return n, nil
}
