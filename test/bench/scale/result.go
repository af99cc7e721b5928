// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is the JSON file. Times are nanoseconds.
type result struct {
	Machine  map[string]string `json:"machine"`
	Settings settings          `json:"settings"`
	Rounds   []round           `json:"rounds"`
	Rest     *restResult       `json:"rest,omitempty"`
}

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
		"kernel": strings.Join(kernel[:min(3, len(kernel))], " "), "cores": fmt.Sprint(runtime.NumCPU()),
		"memory": strings.Join(strings.Fields(first("/proc/meminfo"))[1:], " "), "load": first("/proc/loadavg"),
	}
}

// median of the rounds of one side by a number of theirs.
func (r *result) median(side string, of func(round) float64) float64 {
	var values []float64
	for _, m := range r.Rounds {
		if m.Side == side {
			values = append(values, of(m))
		}
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

// parts of a round.
var parts = []struct {
	name string
	of   func(round) cost
}{
	{"create → all Ready", func(m round) cost { return m.Create }},
	{"rolling update", func(m round) cost { return m.Rollout }},
}

// print writes the tables.
func (r *result) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	s := r.Settings
	fmt.Fprintf(w, "\n%s, %s cores, %s, load %s at the start; %d pods on %d nodes, medians of %d rounds\n\n",
		r.Machine["kernel"], r.Machine["cores"], r.Machine["memory"], r.Machine["load"], s.Pods, s.Nodes, s.Rounds)
	head := []string{"what"}
	head = append(head, s.Sides...)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, p := range parts {
		r.row(w, p.name+", pods/s", "%.0f", func(m round) float64 { return p.of(m).rate() })
		r.row(w, "  seconds", "%.2f", func(m round) float64 { return p.of(m).Took.Seconds() })
		r.row(w, "  ms of CPU a pod, all processes", "%.2f", func(m round) float64 { return 1000 * p.of(m).cpu() / float64(s.Pods) })
		for _, name := range r.names(func(m round) []string { return slices.Collect(maps.Keys(p.of(m).CPU)) }) {
			r.row(w, "    "+name, "%.2f", func(m round) float64 { return 1000 * p.of(m).CPU[name] / float64(s.Pods) })
		}
		r.row(w, "  API writes a pod", "%.2f", func(m round) float64 { return float64(p.of(m).writes()) / float64(s.Pods) })
		for _, what := range r.names(func(m round) []string { return slices.Collect(maps.Keys(p.of(m).Writes)) }) {
			r.row(w, "    "+what, "%.3f", func(m round) float64 { return float64(p.of(m).Writes[what]) / float64(s.Pods) })
		}
	}
	_ = w.Flush()
	r.printRatios(out)
	if r.Rest != nil {
		fmt.Fprintf(w, "\n%d pods at rest on %d nodes, filled in %.0f s, load %s\n", s.RestPods, s.RestNodes, r.Rest.Filled.Seconds(), r.Rest.Load)
		for _, u := range r.Rest.Used {
			fmt.Fprintf(w, "  %s\t%.0f MB (%.0f anonymous)\t%.1f %% of a core\n", u.Name, u.RSSMB, u.AnonMB, 100*u.CPUSeconds/s.Idle.Seconds())
		}
		_ = w.Flush()
	}
}

// printRatios compares Pinnace with every other side.
func (r *result) printRatios(out io.Writer) {
	if !slices.Contains(r.Settings.Sides, pinnace) {
		return
	}
	fmt.Fprintln(out)
	for _, side := range r.Settings.Sides {
		if side == pinnace {
			continue
		}
		for _, p := range parts {
			rate := func(m round) float64 { return p.of(m).rate() }
			cpu := func(m round) float64 { return p.of(m).cpu() }
			fmt.Fprintf(out, "%s: %.2f times the pods per second of %s, with 1/%.2f of the CPU\n", p.name,
				r.median(pinnace, rate)/r.median(side, rate), side, r.median(side, cpu)/r.median(pinnace, cpu))
		}
	}
}

func (r *result) row(w io.Writer, what, format string, of func(round) float64) {
	cells := []string{what}
	for _, side := range r.Settings.Sides {
		cell := ""
		if v := r.median(side, of); v != 0 {
			cell = fmt.Sprintf(format, v)
		}
		cells = append(cells, cell)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// names are all that occur in any round, sorted.
func (r *result) names(of func(round) []string) []string {
	all := map[string]bool{}
	for _, m := range r.Rounds {
		for _, name := range of(m) {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
