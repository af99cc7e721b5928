// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pinnace-dev/pinnace/test/bench/usage"
)

// result is the JSON file.
type result struct {
	Settings   settings `json:"settings"`
	LoadBefore string   `json:"loadBefore"`
	LoadAfter  string   `json:"loadAfter"`
	Floor      []cost   `json:"floor"`
	Agent      []cost   `json:"agent"`
	Kubelet    []cost   `json:"kubelet"`
	AtRest     []atRest `json:"atRest"`
}

type atRest struct {
	Side  string      `json:"side"`
	Pods  int         `json:"pods"`
	Usage usage.Usage `json:"usage"`
}

func (r *result) add(s *side, c cost) {
	if s.node == agentNode {
		r.Agent = append(r.Agent, c)
	} else {
		r.Kubelet = append(r.Kubelet, c)
	}
}

// lastRound is one line.
func (r *result) lastRound() string {
	var b strings.Builder
	for i, costs := range [][]cost{r.Floor, r.Agent, r.Kubelet} {
		c := costs[len(costs)-1]
		fmt.Fprintf(&b, "%s one %s, %d at once %s with %.1f s of CPU; ", []string{"floor", "agent", "kubelet"}[i], milliseconds(percentile(c.Single, 50)),
			r.Settings.Batch, milliseconds(percentile(c.Batch, 100)), c.CPU)
	}
	return b.String() + "load " + load()
}

// percentile of a list that isn't empty.
func percentile(times []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// over returns the median over the rounds.
func over[T float64 | time.Duration](costs []cost, of func(cost) T) T {
	var values []T
	for _, c := range costs {
		values = append(values, of(c))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// ratio is the median of the rounds' ratios to the floor of the same round, so that a machine whose speed drifts treats all alike.
func (r *result) ratio(costs []cost, of func(cost) float64) float64 {
	var values []float64
	for i, c := range costs {
		values = append(values, of(c)/of(r.Floor[i]))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func single(p int) func(cost) time.Duration {
	return func(c cost) time.Duration { return percentile(c.Single, p) }
}

func batch(p int) func(cost) time.Duration {
	return func(c cost) time.Duration { return percentile(c.Batch, p) }
}

func statusWrites(c cost) int {
	n := 0
	for what, count := range c.Writes {
		if strings.HasSuffix(what, "pods/status") {
			n += count
		}
	}
	return n
}

// print writes the table.
func (r *result) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\nload %s before, %s after; median of %d rounds\n\n", r.LoadBefore, r.LoadAfter, r.Settings.Rounds)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	row("what", "agent", "kubelet", "CRI's floor", "target for the agent")
	times := func(what string, of func(cost) time.Duration, floor bool) {
		cell := ""
		if floor {
			cell = milliseconds(over(r.Floor, of))
		}
		row(what, milliseconds(over(r.Agent, of)), milliseconds(over(r.Kubelet, of)), cell, "")
	}
	ratios := func(of func(cost) float64, target string) {
		row("  as a multiple of the floor", fmt.Sprintf("%.2f", r.ratio(r.Agent, of)), fmt.Sprintf("%.2f", r.ratio(r.Kubelet, of)), "1", target)
	}
	times("one pod, create → Ready, p50", single(50), true)
	ratios(func(c cost) float64 { return single(50)(c).Seconds() }, "≤ 1.4")
	times("one pod, create → Ready, p99", single(99), false)
	n := r.Settings.Batch
	times(fmt.Sprintf("%d pods at once, the last Ready", n), batch(100), true)
	ratios(func(c cost) float64 { return batch(100)(c).Seconds() }, "≤ 1.2")
	times("  p50 of the pods", batch(50), false)
	times("  p99 of the pods", batch(99), false)
	cpu := func(c cost) float64 { return c.CPU }
	all := func(costs []cost) string { return fmt.Sprintf("%.2f s", over(costs, cpu)) }
	row(fmt.Sprintf("CPU of all processes, %d pods", n), all(r.Agent), all(r.Kubelet), all(r.Floor), "")
	ratios(cpu, "")
	perPod := func(costs []cost) string {
		return fmt.Sprintf("%.2f", over(costs, func(c cost) float64 { return float64(statusWrites(c)) / float64(n) }))
	}
	row("status writes of a start", perPod(r.Agent), perPod(r.Kubelet), "", "≤ 2")
	for _, a := range r.AtRest {
		if a.Side != sides[0].name {
			continue
		}
		k := r.restOf(sides[1].name, a.Pods)
		target, ratio := "≤ 60 MB", ""
		if a.Pods == r.Settings.Many {
			target, ratio = "≤ 90 MB", "≤ half of the kubelet's"
		}
		row(fmt.Sprintf("memory (RSS) with %d pods", a.Pods), memory(a.Usage), memory(k), "", target)
		row(fmt.Sprintf("CPU at rest with %d pods", a.Pods), r.perTen(a.Usage), r.perTen(k), "", ratio)
	}
	_ = w.Flush()
	for i, costs := range [][]cost{r.Agent, r.Kubelet} {
		last := costs[len(costs)-1].Writes
		fmt.Fprintf(out, "\nwrites of the last %d pods, %s:", n, sides[i].name)
		for _, what := range slices.Sorted(maps.Keys(last)) {
			fmt.Fprintf(out, " %s %d;", what, last[what])
		}
		fmt.Fprintf(out, "\n  CPU:")
		rest, used := costs[len(costs)-1].CPU, costs[len(costs)-1].ByProcess
		for _, name := range slices.Sorted(maps.Keys(used)) {
			fmt.Fprintf(out, " %s %.2f s;", name, used[name])
			rest -= used[name]
		}
		fmt.Fprintf(out, " shims, runc, CNI and this program %.2f s", rest)
	}
	fmt.Fprintln(out)
}

func (r *result) restOf(side string, pods int) usage.Usage {
	for _, a := range r.AtRest {
		if a.Side == side && a.Pods == pods {
			return a.Usage
		}
	}
	return usage.Usage{}
}

func (r *result) perTen(u usage.Usage) string {
	return fmt.Sprintf("%.3f s per 10 s", u.CPUSeconds*10/r.Settings.Idle.Seconds())
}

func memory(u usage.Usage) string { return fmt.Sprintf("%.0f MB (%.0f anonymous)", u.RSSMB, u.AnonMB) }

func milliseconds(d time.Duration) string { return d.Round(time.Millisecond).String() }
