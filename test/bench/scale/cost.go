// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/pinnace-dev/pinnace/test/bench/usage"
)

// cost is what something cost.
type cost struct {
	Took time.Duration `json:"tookNanoseconds"`
	Pods int           `json:"pods"`
	// CPU has the seconds of CPU that each process used, until all pods that were replaced had ended, too.
	CPU map[string]float64 `json:"cpuSeconds"`
	// Writes counts what the API server accepted, by verb and resource, without leases.
	Writes map[string]int `json:"writes"`
}

func (c cost) rate() float64 { return float64(c.Pods) / c.Took.Seconds() }

func (c cost) cpu() float64 {
	sum := 0.0
	for _, seconds := range c.CPU {
		sum += seconds
	}
	return sum
}

func (c cost) writes() int {
	sum := 0
	for _, n := range c.Writes {
		sum += n
	}
	return sum
}

// String is one line.
func (c cost) String() string {
	return fmt.Sprintf("%.2f s (%.0f pods/s, %.1f s of CPU, %.2f writes a pod)", c.Took.Seconds(), c.rate(), c.cpu(), float64(c.writes())/float64(c.Pods))
}

// measure counts what something costs. do returns how long the part took that is timed; what it does beyond, such as waiting
// for the end of old pods, counts as cost only.
func (d *side) measure(pods int, do func() (time.Duration, error)) (cost, error) {
	before, err := d.counts()
	if err != nil {
		return cost{}, err
	}
	took, err := do()
	if err != nil {
		return cost{}, err
	}
	after, err := d.counts()
	if err != nil {
		return cost{}, err
	}
	c := cost{Took: took, Pods: pods, CPU: map[string]float64{}, Writes: map[string]int{}}
	for name, seconds := range after.cpu {
		c.CPU[name] = seconds - before.cpu[name]
	}
	for what, n := range after.writes {
		if n -= before.writes[what]; n > 0 && !isLease(what) {
			c.Writes[what] = n
		}
	}
	return c, nil
}

type counts struct {
	cpu    map[string]float64
	writes map[string]int
}

func (d *side) counts() (counts, error) {
	c := counts{cpu: map[string]float64{}}
	for name, pid := range d.program {
		seconds, err := usage.CPUSeconds(pid)
		if err != nil {
			return c, fmt.Errorf("measuring %s: %w", name, err)
		}
		c.cpu[name] = seconds
	}
	text, err := get(d.ctx, d.admin, "/metrics")
	if err != nil {
		return c, err
	}
	c.writes, err = readWrites(text)
	return c, err
}

func get(ctx context.Context, config *rest.Config, path string) ([]byte, error) {
	plain := rest.CopyConfig(config)
	plain.GroupVersion, plain.NegotiatedSerializer = &schema.GroupVersion{}, scheme.Codecs.WithoutConversion()
	c, err := rest.UnversionedRESTClientFor(plain)
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(path, "?")
	request := c.Get().AbsPath(path)
	if name, value, ok := strings.Cut(query, "="); ok {
		request.Param(name, value)
	}
	out, err := request.DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return out, nil
}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// readWrites reads the API server's own count of the writes that it accepted.
func readWrites(metrics []byte) (map[string]int, error) {
	out := map[string]int{}
	for line := range bytes.Lines(metrics) {
		text, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "apiserver_request_total{")
		if !ok {
			continue
		}
		labels := map[string]string{}
		for _, m := range label.FindAllStringSubmatch(text, -1) {
			labels[m[1]] = m[2]
		}
		switch labels["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE":
		default:
			continue
		}
		if !strings.HasPrefix(labels["code"], "2") || strings.HasSuffix(labels["resource"], "reviews") {
			continue
		}
		n, err := strconv.ParseFloat(text[strings.LastIndexByte(text, ' ')+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("reading the API server's metrics: %q: %w", line, err)
		}
		what := labels["verb"] + " " + labels["resource"]
		if labels["subresource"] != "" {
			what += "/" + labels["subresource"]
		}
		out[what] += int(n)
	}
	return out, nil
}

// load is the machine's, over the last minute.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}
