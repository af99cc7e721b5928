// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// userHertz is the unit of /proc/stat: 100 on every platform that Linux has kept it on.
const userHertz = 100

// machineUsage reads what the whole machine uses.
func machineUsage(now time.Time) (counter, memory, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return counter{}, memory{}, fmt.Errorf("reading the machine's CPU time: %w", err)
	}
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return counter{}, memory{}, fmt.Errorf("reading the machine's memory: %w", err)
	}
	total, free := memoryLine(info, "MemTotal:"), memoryLine(info, "MemAvailable:")
	return counter{at: now, total: busyTime(stat)}, memory{at: now, workingSet: total - min(free, total), used: total - min(memoryLine(info, "MemFree:"), total), free: free}, nil
}

// busyTime is pure: the nanoseconds that all processors were not idle. Time of guests is in that of their users already.
func busyTime(stat []byte) uint64 {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line))
	var ticks uint64
	for i, field := range fields {
		// cpu user nice system idle iowait irq softirq steal guest guest_nice
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks * uint64(time.Second/userHertz)
}

// memoryLine reads a line of /proc/meminfo, in bytes.
func memoryLine(info []byte, name string) uint64 {
	for line := range bytes.Lines(info) {
		if fields := strings.Fields(string(line)); len(fields) > 1 && fields[0] == name {
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}
