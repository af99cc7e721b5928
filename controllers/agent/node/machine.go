// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pinnace-dev/pinnace/internal/machine"
)

// podsMost is how many pods a node takes; upstream's default.
const podsMost = 110

// Machine reads what this machine has. dataDir is on the file system that pods' volumes, logs and images share; version is
// Pinnace's, which stands where the kubelet's stands upstream.
func Machine(dataDir, version string) (capacity corev1.ResourceList, info corev1.NodeSystemInfo, err error) {
	memory, _, err := machine.Memory()
	if err != nil {
		return nil, info, err
	}
	disk, err := machine.FileSystemOf(dataDir)
	if err != nil {
		return nil, info, err
	}
	capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(disk.Size, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(podsMost, resource.DecimalSI),
	}
	for size, bytes := range machine.HugePages() {
		name := corev1.ResourceHugePagesPrefix + resource.NewQuantity(size, resource.BinarySI).String()
		capacity[corev1.ResourceName(name)] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return nil, info, fmt.Errorf("reading the kernel's version: %w", err)
	}
	return capacity, corev1.NodeSystemInfo{
		MachineID:       machine.FirstLine("/etc/machine-id"),
		SystemUUID:      machine.FirstLine("/sys/class/dmi/id/product_uuid"),
		BootID:          machine.FirstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion:   unix.ByteSliceToString(kernel.Release[:]),
		OSImage:         osImage(),
		OperatingSystem: goruntime.GOOS,
		Architecture:    goruntime.GOARCH,
		KubeletVersion:  version,
	}, nil
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
