// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// usageFresh is how long what a node's agent said is handed out again.
	usageFresh = 10 * time.Second
	// usageShortest is the time between two looks when there was no earlier one: CPU time is a counter, and a rate needs two.
	usageShortest = time.Second
	// usageOldest is how old an earlier look may be to be counted from.
	usageOldest = 2 * time.Minute
	usageMost   = 16 << 20
)

// reading is what has been used until a moment: CPU in seconds of a core, memory in bytes at that moment.
type reading struct {
	cpu    float64
	memory uint64
	at     time.Time
	// started is when a container started; zero while unknown.
	started time.Time
}

// containerKey tells the containers of a node apart.
type containerKey struct{ namespace, pod, container string }

// look is what an agent said at once.
type look struct {
	node       reading
	containers map[containerKey]reading
}

// rate is what is used between two looks.
type rate struct {
	// cores and bytes, the moment, and the time before it over which the cores are the mean.
	cores  float64
	memory uint64
	at     time.Time
	window time.Duration
}

// nodeUsage is what is known of a node. The lock lets one look at a time through.
type nodeUsage struct {
	sync.Mutex
	before, now *look
	taken       time.Time
}

// usages asks agents what their nodes and containers use, and remembers it for a moment. Nothing is asked unless somebody
// wants to know. It is safe for concurrent use.
type usages struct {
	agents *Agents
	mu     sync.Mutex
	nodes  map[string]*nodeUsage
}

func (u *usages) node(name string) *nodeUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.nodes == nil {
		u.nodes = map[string]*nodeUsage{}
	}
	// What nobody asked for in a while is of no use any more: a node may have gone.
	for other, n := range u.nodes {
		if other != name && n.TryLock() {
			if time.Since(n.taken) > usageOldest {
				delete(u.nodes, other)
			}
			n.Unlock()
		}
	}
	if u.nodes[name] == nil {
		u.nodes[name] = &nodeUsage{}
	}
	return u.nodes[name]
}

// of returns two looks at a node, at least usageShortest apart.
func (u *usages) of(ctx context.Context, name string) (before, now *look, err error) {
	n := u.node(name)
	n.Lock()
	defer n.Unlock()
	age := time.Since(n.taken)
	if n.before != nil && age < usageFresh {
		return n.before, n.now, nil
	}
	if n.now == nil || age > usageOldest {
		first, err := u.look(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		n.before, n.now, n.taken = nil, first, time.Now()
		age = 0
	}
	if age < usageShortest {
		timer := time.NewTimer(usageShortest - age)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("asking the agent of node %s: %w", name, ctx.Err())
		case <-timer.C:
		}
	}
	second, err := u.look(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	n.before, n.now, n.taken = n.now, second, time.Now()
	return n.before, n.now, nil
}

// look asks an agent once.
func (u *usages) look(ctx context.Context, name string) (*look, error) {
	agent, transport, err := u.agents.Locate(ctx, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, agent.JoinPath("metrics", "resource").String(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking the agent of node %s: %w", name, err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("asking the agent of node %s: %v", name, err))
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of node %s answers %s when asked what is used", name, response.Status))
	}
	return readLook(io.LimitReader(response.Body, usageMost))
}

// readLook reads an agent's /metrics/resource.
func readLook(from io.Reader) (*look, error) {
	out := &look{containers: map[containerKey]reading{}}
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		metric, ok := parseMetric(lines.Text())
		if !ok {
			continue
		}
		key := containerKey{metric.labels["namespace"], metric.labels["pod"], metric.labels["container"]}
		at := out.containers[key]
		switch metric.name {
		case "node_cpu_usage_seconds_total":
			out.node.cpu, out.node.at = metric.value, metric.at
			continue
		case "node_memory_working_set_bytes":
			out.node.memory = uint64(metric.value)
			continue
		case "container_cpu_usage_seconds_total":
			at.cpu, at.at = metric.value, metric.at
		case "container_memory_working_set_bytes":
			at.memory = uint64(metric.value)
		case "container_start_time_seconds":
			at.started = time.UnixMilli(int64(metric.value * 1000))
		default:
			continue
		}
		out.containers[key] = at
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading what is used: %w", err)
	}
	return out, nil
}

type metric struct {
	name   string
	labels map[string]string
	value  float64
	at     time.Time
}

// parseMetric is pure: it reads one line of Prometheus' text format. Names of nodes, pods and containers hold nothing that is
// escaped.
func parseMetric(line string) (metric, bool) {
	if line == "" || line[0] == '#' {
		return metric{}, false
	}
	m := metric{labels: map[string]string{}}
	head, tail, labelled := strings.Cut(line, "{")
	if labelled {
		var list string
		if list, tail, labelled = strings.Cut(tail, "}"); !labelled {
			return metric{}, false
		}
		for _, pair := range strings.Split(list, ",") {
			name, value, _ := strings.Cut(pair, "=")
			m.labels[name] = strings.Trim(value, `"`)
		}
		m.name = head
	} else {
		m.name, tail, _ = strings.Cut(line, " ")
	}
	fields := strings.Fields(tail)
	if len(fields) == 0 {
		return metric{}, false
	}
	var err error
	if m.value, err = strconv.ParseFloat(fields[0], 64); err != nil || m.value < 0 || math.IsNaN(m.value) {
		return metric{}, false
	}
	if len(fields) > 1 {
		milliseconds, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return metric{}, false
		}
		m.at = time.UnixMilli(milliseconds)
	}
	return m, true
}

// rateOf is pure: what is used between two readings. A container that started in between is counted from its start. It returns
// false while nothing can be said: no time has passed, or nobody knows from when to count.
func rateOf(before, now reading) (rate, bool) {
	if now.at.IsZero() {
		return rate{}, false
	}
	if before.at.IsZero() || now.cpu < before.cpu || now.started.After(before.at) {
		if now.started.IsZero() {
			return rate{}, false
		}
		before = reading{at: now.started}
	}
	window := now.at.Sub(before.at)
	if window < usageShortest/2 {
		return rate{}, false
	}
	return rate{cores: (now.cpu - before.cpu) / window.Seconds(), memory: now.memory, at: now.at, window: window}, true
}
