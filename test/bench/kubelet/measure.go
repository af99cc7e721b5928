// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/pinnace-dev/pinnace/test/bench/usage"
)

// cost is what one round of one side, or of the floor, showed.
type cost struct {
	// Single has the times of the pods that were started one at a time; of the floor it has one: the sum of the calls' medians.
	Single []time.Duration `json:"singleNanoseconds"`
	// Batch has the times of the pods that were started at once, each from the beginning; of the floor it has one: the last pod's.
	Batch []time.Duration `json:"batchNanoseconds"`
	// CPU has the seconds of all processes, from the first creation to the last Ready.
	CPU float64 `json:"cpuSeconds"`
	// ByProcess has what of it single processes used; the rest are shims, runc, CNI, and this program.
	ByProcess map[string]float64 `json:"cpuSecondsByProcess"`
	// Writes counts the API server's writes for the pods that were started at once, by verb and resource.
	Writes map[string]int `json:"writes,omitempty"`
}

// round measures the floor and both sides. Each round begins with another, because what runs later may pay for what was removed before it
// (docs/bench.md says how a disk can be the cause).
func (r *rig) round(i int, out *result) error {
	turns := []func() error{func() error { return r.floorRound(out) }}
	for _, s := range sides {
		turns = append(turns, func() error {
			return r.with(s, func(pid int) error {
				c, err := r.starts(s, pid)
				out.add(s, c)
				return err
			})
		})
	}
	for j := range turns {
		if err := turns[(i+j)%len(turns)](); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) floorRound(out *result) error {
	single, _, err := r.floor(r.Single, 1)
	if err != nil {
		return err
	}
	batch, cpu, err := r.floor(r.Batch, r.parallel)
	if err != nil {
		return err
	}
	one := single.P50["RunPodSandbox"] + single.P50["CreateContainer"] + single.P50["StartContainer"]
	out.Floor = append(out.Floor, cost{Single: []time.Duration{one}, Batch: []time.Duration{batch.Total}, CPU: cpu})
	return nil
}

// starts measures pods one at a time, then many at once.
func (r *rig) starts(s *side, pid int) (c cost, err error) {
	// The first pod warms what is set up once.
	for i, name := range r.names("single", r.Single+1) {
		took, err := r.make(s, []string{name})
		if err != nil {
			return c, err
		}
		if i > 0 {
			c.Single = append(c.Single, took...)
		}
		if err := r.remove(s); err != nil {
			return c, err
		}
	}
	if err := usage.Quiet(r.ctx); err != nil {
		return c, err
	}
	before, err := r.writes()
	if err != nil {
		return c, err
	}
	processes := r.processes()
	processes[s.name] = pid
	used := seconds(processes)
	cpu := r.account.seconds()
	if c.Batch, err = r.make(s, r.names("batch", r.Batch)); err != nil {
		return c, err
	}
	c.CPU = r.account.seconds() - cpu
	c.ByProcess = seconds(processes)
	for name := range c.ByProcess {
		c.ByProcess[name] -= used[name]
	}
	after, err := r.writes()
	if err != nil {
		return c, err
	}
	c.Writes = map[string]int{}
	for what, n := range after {
		if n -= before[what]; n > 0 {
			c.Writes[what] = n
		}
	}
	return c, r.remove(s)
}

// processes are those that run for all sides.
func (r *rig) processes() map[string]int {
	out := map[string]int{"manager": r.manager.PID(), "containerd": r.runtime.PID}
	for _, p := range r.plane.Processes() {
		out[p.Name] = p.PID
	}
	return out
}

// seconds of CPU so far, of processes.
func seconds(processes map[string]int) map[string]float64 {
	out := map[string]float64{}
	for name, pid := range processes {
		if used, err := usage.CPUSeconds(pid); err == nil {
			out[name] = used
		}
	}
	return out
}

// rest measures memory and CPU at rest, with few and with many pods.
func (r *rig) rest(s *side, out *result) error {
	return r.with(s, func(pid int) error {
		had := 0
		for _, want := range []int{r.Few, r.Many} {
			if _, err := r.make(s, r.names("rest", want-had)); err != nil {
				return err
			}
			had = want
			progress("%s with %d pods: waiting %s, then measuring for %s", s.name, want, r.Settle, r.Idle)
			if err := pause(r.ctx, r.Settle); err != nil {
				return err
			}
			used, err := usage.Watch(map[string]int{s.name: pid}, r.Idle)
			if err != nil {
				return err
			}
			out.AtRest = append(out.AtRest, atRest{Side: s.name, Pods: want, Usage: used[0]})
		}
		return r.remove(s)
	})
}

// counter is a line of the API server's own count of requests.
var counter = regexp.MustCompile(`(?m)^apiserver_request_total\{(.*)\} (\S+)$`)

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// writes reads how many writes of pods and events the API server has accepted.
func (r *rig) writes() (map[string]int, error) {
	c, err := kubernetes.NewForConfig(r.admin)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	text, err := c.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(r.ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	out := map[string]int{}
	for _, m := range counter.FindAllStringSubmatch(string(text), -1) {
		labels := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(m[1], -1) {
			labels[l[1]] = l[2]
		}
		if !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY"}, labels["verb"]) || !strings.HasPrefix(labels["code"], "2") {
			continue
		}
		if !slices.Contains([]string{"pods", "events"}, labels["resource"]) {
			continue
		}
		what := labels["verb"] + " " + labels["resource"]
		if labels["subresource"] != "" {
			what += "/" + labels["subresource"]
		}
		n, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, fmt.Errorf("reading the API server's metrics: %q: %w", m[0], err)
		}
		out[what] += int(n)
	}
	return out, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
