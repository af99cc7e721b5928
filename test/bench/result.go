// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pinnace-dev/pinnace/test/bench/usage"
	"github.com/pinnace-dev/pinnace/test/machine"
)

// result is the JSON file. Times are nanoseconds.
type result struct {
	Machine    map[string]string `json:"machine"`
	Versions   map[string]string `json:"versions"`
	Settings   settings          `json:"settings"`
	ColdStart  time.Duration     `json:"coldStartNanoseconds"`
	WarmStarts []time.Duration   `json:"warmStartsNanoseconds"`
	AtRest     []usage.Usage     `json:"atRest"`
	// Floors are the times of each level of parallelism, in the order of the settings.
	Floors    [][]time.Duration `json:"floorsNanoseconds"`
	Rollouts  []time.Duration   `json:"rolloutsNanoseconds"`
	OnePod    []time.Duration   `json:"onePodNanoseconds"`
	Yardstick map[string]string `json:"yardstick"`
}

// yardstick is upstream 1.37.1 — etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy,
// containerd — measured on the same sort of machine, but not in this run.
var yardstick = map[string]string{
	"start": "5.0–7.5 s", "memory": "673–716 MB", "cpu": "0.39–0.53 s per 10 s", "rollout": "3.9–5.2 s", "onePod": "0.65 s",
}

// ours are Pinnace's own processes, by the beginning of their names.
var ours = []string{"up", "manager", "agent"}

func isOurs(name string) bool {
	for _, prefix := range ours {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// floor is the best level's median, and that level.
func (r *result) floor() (best time.Duration, parallel int) {
	for i, times := range r.Floors {
		if m := median(times); parallel == 0 || m < best {
			best, parallel = m, r.Settings.Parallel[i]
		}
	}
	return best, parallel
}

// print writes the table.
func (r *result) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\n%s, %s cores, %s, load %s\n\n", r.Machine["kernel"], r.Machine["cores"], r.Machine["memory"], r.Machine["load"])
	fmt.Fprintln(w, "what\tPinnace\ttarget\tupstream 1.37.1, another run")
	row := func(what, value, target, upstream string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", what, value, target, upstream)
	}
	row("start → node Ready, empty data folder", seconds(r.ColdStart), "", "")
	row("start → node Ready, warm data folder", seconds(median(r.WarmStarts)), "≤ 8 s", r.Yardstick["start"])
	var sum, own, cpu float64
	for _, u := range r.AtRest {
		sum, cpu = sum+u.RSSMB, cpu+u.CPUSeconds
		if isOurs(u.Name) {
			own += u.RSSMB
		}
	}
	row("memory at rest (RSS), all processes", fmt.Sprintf("%.0f MB", sum), "≤ 520 MB, aim 420", r.Yardstick["memory"])
	row("  of them Pinnace's own", fmt.Sprintf("%.0f MB", own), "≤ 100 MB", "")
	for _, u := range r.AtRest {
		row("  "+u.Name, fmt.Sprintf("%.0f MB (%.0f anonymous)", u.RSSMB, u.AnonMB), "", "")
	}
	row("CPU at rest, all processes", fmt.Sprintf("%.2f s per 10 s", cpu*10/r.Settings.Idle.Seconds()), "", r.Yardstick["cpu"])
	for _, u := range r.AtRest {
		row("  "+u.Name, fmt.Sprintf("%.3f s per 10 s", u.CPUSeconds*10/r.Settings.Idle.Seconds()), "", "")
	}
	floor, parallel := r.floor()
	rollout := median(r.Rollouts)
	pods := r.Settings.Pods
	row(fmt.Sprintf("CRI's own floor, %d pods, %d in parallel", pods, parallel), seconds(floor), "", "")
	row(fmt.Sprintf("create → %d of %d Ready, image present", pods, pods), seconds(rollout), "", r.Yardstick["rollout"])
	row("  as a multiple of the floor", fmt.Sprintf("%.2f", rollout.Seconds()/floor.Seconds()), "≤ 1.25", "")
	row("create → 1 of 1 Ready, image present", seconds(median(r.OnePod)), "", r.Yardstick["onePod"])
	_ = w.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func describeMachine() map[string]string {
	first := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			return "unknown"
		}
		line, _, _ := strings.Cut(string(data), "\n")
		return strings.TrimSpace(line)
	}
	kernel := strings.Fields(first("/proc/version"))
	return map[string]string{
		"kernel": strings.Join(kernel[:min(3, len(kernel))], " "),
		"cores":  fmt.Sprint(runtime.NumCPU()),
		"memory": strings.Join(strings.Fields(first("/proc/meminfo"))[1:], " "),
		"load":   first("/proc/loadavg"),
	}
}

func versions(m *machine.Machine) map[string]string {
	out := map[string]string{"go": runtime.Version()}
	for _, program := range []string{"etcd", "kube-apiserver", "containerd", "runc"} {
		text, err := exec.Command(m.Path("bin/assets", program), "--version").Output()
		if err == nil {
			line, _, _ := strings.Cut(string(text), "\n")
			out[program] = strings.TrimSpace(line)
		}
	}
	text, err := exec.Command(m.Path("bin/pinnace"), "--version").Output()
	if err == nil {
		out["pinnace"] = strings.TrimSpace(string(text))
	}
	return out
}
