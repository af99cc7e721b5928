// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// podsMost is how many pods a node takes; upstream's default.
const podsMost = 110

// Machine reads what this machine has. dataDir is on the file system that pods' volumes, logs and images share; version is
// Pinnace's, which stands where the kubelet's stands upstream.
func Machine(dataDir, version string) (capacity corev1.ResourceList, info corev1.NodeSystemInfo, err error) {
	memory, _, err := memoryBytes()
	if err != nil {
		return nil, info, err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dataDir, &disk); err != nil {
		return nil, info, fmt.Errorf("reading the size of the file system of %s: %w", dataDir, err)
	}
	capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.Blocks)*disk.Bsize, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(podsMost, resource.DecimalSI),
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return nil, info, fmt.Errorf("reading the kernel's version: %w", err)
	}
	return capacity, corev1.NodeSystemInfo{
		MachineID:       firstLine("/etc/machine-id"),
		SystemUUID:      firstLine("/sys/class/dmi/id/product_uuid"),
		BootID:          firstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion:   unix.ByteSliceToString(kernel.Release[:]),
		OSImage:         osImage(),
		OperatingSystem: goruntime.GOOS,
		Architecture:    goruntime.GOARCH,
		KubeletVersion:  version,
	}, nil
}

// Thresholds of pressure; the kubelet's defaults of hard eviction.
const (
	memoryLeast   = 100 << 20
	diskLeastPart = 0.10
	pidsLeastPart = 0.10
)

// MachinePressure tells what this machine lacks.
func MachinePressure(dataDir string) func() (Pressure, error) {
	return func() (Pressure, error) {
		_, available, err := memoryBytes()
		if err != nil {
			return Pressure{}, err
		}
		var disk unix.Statfs_t
		if err := unix.Statfs(dataDir, &disk); err != nil {
			return Pressure{}, fmt.Errorf("reading the free space of the file system of %s: %w", dataDir, err)
		}
		return Pressure{
			Memory: available < memoryLeast,
			Disk:   float64(disk.Bavail) < diskLeastPart*float64(disk.Blocks),
			PIDs:   pidsShort(),
		}, nil
	}
}

// pidsShort compares the number of threads with the kernel's bound; what can't be read is not short.
func pidsShort() bool {
	most, err := strconv.ParseFloat(firstLine("/proc/sys/kernel/pid_max"), 64)
	if err != nil {
		return false
	}
	fields := strings.Fields(firstLine("/proc/loadavg"))
	if len(fields) < 4 {
		return false
	}
	_, total, _ := strings.Cut(fields[3], "/")
	now, err := strconv.ParseFloat(total, 64)
	return err == nil && most-now < pidsLeastPart*most
}

func memoryBytes() (total, available int64, err error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("reading the machine's memory: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
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
	return total, available, lines.Err()
}

func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return ""
}

// firstLine of a file, or nothing when it can't be read: none of these facts is needed.
func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}
