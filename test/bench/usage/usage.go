// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Usage is what one process uses.
type Usage struct {
	Name string `json:"name"`
	// RSSMB is resident memory, of which AnonMB is its own (not mapped from files), in 10^6 bytes.
	RSSMB  float64 `json:"rssMB"`
	AnonMB float64 `json:"anonMB"`
	// CPUSeconds were used over the time that was watched.
	CPUSeconds float64 `json:"cpuSeconds"`
}

// clockTick is the unit of times in /proc: 100 a second on every Linux that Go supports.
const clockTick = 100

// Watch measures processes over a time.
func Watch(processes map[string]int, over time.Duration) ([]Usage, error) {
	before := map[string]float64{}
	for name, pid := range processes {
		seconds, err := CPUSeconds(pid)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", name, err)
		}
		before[name] = seconds
	}
	time.Sleep(over) // the measurement itself: there is nothing to wait for
	var out []Usage
	for name, pid := range processes {
		seconds, err := CPUSeconds(pid)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", name, err)
		}
		u := Usage{Name: name, CPUSeconds: seconds - before[name]}
		if u.RSSMB, u.AnonMB, err = Memory(pid); err != nil {
			return nil, fmt.Errorf("measuring %s: %w", name, err)
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b Usage) int { return int(b.RSSMB*10 - a.RSSMB*10) })
	return out, nil
}

// Quiet waits until the machine's processors have rested for three seconds, or for at most twenty: what runs after its cause has ended, such as
// the kernel's removal of network namespaces, would be charged to whatever is measured next.
func Quiet(ctx context.Context) error {
	const (
		most   = 20 * time.Second
		sample = 500 * time.Millisecond
		enough = 6    // samples
		rested = 0.15 // of the processors' time, in use
	)
	busyBefore, allBefore, err := processors()
	if err != nil {
		return err
	}
	quiet := 0
	err = wait.PollUntilContextTimeout(ctx, sample, most, false, func(context.Context) (bool, error) {
		busy, all, err := processors()
		if (busy-busyBefore)/max(1, all-allBefore) < rested {
			quiet++
		} else {
			quiet = 0
		}
		busyBefore, allBefore = busy, all
		return quiet >= enough, err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return nil // A busy machine is measured as it is.
	}
	return err
}

// processors are the ticks that all processors were in use so far, and all their ticks.
func processors() (busy, all float64, err error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	for i, field := range strings.Fields(line) {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			continue // the line's name
		}
		if all += ticks; i != 4 && i != 5 { // neither idle nor waiting for a disk
			busy += ticks
		}
	}
	return busy, all, nil
}

// CPUSeconds is the CPU time that a process has used so far, in user and system mode.
func CPUSeconds(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("reading the times of process %d", pid)
	}
	return (user + system) / clockTick, nil
}

// Memory is the resident memory of a process, and the part of it that is its own and not mapped from files, in 10^6 bytes.
func Memory(pid int) (rss, anon float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			rss = kib * 1024 / 1e6
		case "RssAnon:":
			anon = kib * 1024 / 1e6
		}
	}
	if rss == 0 {
		return 0, 0, fmt.Errorf("process %d shows no memory", pid)
	}
	return rss, anon, nil
}
