// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pinnace-dev/pinnace/internal/access"
)

// exposition writes metrics in Prometheus' text format.
type exposition struct{ bytes.Buffer }

// family begins a metric.
func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one value; labels are name, value, name, value… at is left out when it is zero.
func (e *exposition) sample(name string, value float64, at time.Time, labels ...string) {
	e.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		e.WriteByte("{,"[min(i, 1)])
		e.WriteString(labels[i] + `="` + labelEscape.Replace(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	e.WriteByte(' ')
	e.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	if !at.IsZero() {
		e.WriteByte(' ')
		e.WriteString(strconv.FormatInt(at.UnixMilli(), 10))
	}
	e.WriteByte('\n')
}

var labelEscape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func (e *exposition) send(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(e.Bytes())
}

func seconds(nanoseconds uint64) float64 { return float64(nanoseconds) / float64(time.Second) }

// serveResourceMetrics answers as the kubelet's /metrics/resource, from which metrics-server and its like live.
func (s *Server) serveResourceMetrics(w http.ResponseWriter, r *http.Request) {
	pods, err := s.usage(r.Context())
	if err != nil {
		access.WriteError(w, err)
		return
	}
	cpu, mem, err := machineUsage(time.Now())
	if err != nil {
		access.WriteError(w, err)
		return
	}
	e := &exposition{}
	e.family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds")
	e.sample("node_cpu_usage_seconds_total", seconds(cpu.total), cpu.at)
	e.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
	e.sample("node_memory_working_set_bytes", float64(mem.workingSet), mem.at)
	eachContainer(e, pods, "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds",
		func(c containerUsage) (float64, time.Time) { return seconds(c.cpu.total), c.cpu.at })
	eachContainer(e, pods, "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes",
		func(c containerUsage) (float64, time.Time) { return float64(c.memory.workingSet), c.memory.at })
	eachContainer(e, pods, "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds",
		func(c containerUsage) (float64, time.Time) { return seconds(uint64(c.started.UnixNano())), time.Time{} })
	e.family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds")
	for _, p := range pods {
		e.sample("pod_cpu_usage_seconds_total", seconds(p.cpu.total), p.cpu.at, "namespace", p.namespace, "pod", p.name)
	}
	e.family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes")
	for _, p := range pods {
		e.sample("pod_memory_working_set_bytes", float64(p.memory.workingSet), p.memory.at, "namespace", p.namespace, "pod", p.name)
	}
	e.family("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise")
	e.sample("resource_scrape_error", 0, time.Time{})
	e.send(w)
}

func eachContainer(e *exposition, pods []podUsage, name, kind, help string, value func(containerUsage) (float64, time.Time)) {
	e.family(name, kind, help)
	for _, p := range pods {
		for _, c := range p.containers {
			v, at := value(c)
			e.sample(name, v, at, "container", c.name, "namespace", p.namespace, "pod", p.name)
		}
	}
}

// serveContainerMetrics answers with cAdvisor's names what the runtime counts.
func (s *Server) serveContainerMetrics(w http.ResponseWriter, r *http.Request) {
	pods, err := s.usage(r.Context())
	if err != nil {
		access.WriteError(w, err)
		return
	}
	e := &exposition{}
	for _, m := range []struct {
		name, kind, help string
		value            func(containerUsage) (float64, time.Time)
	}{
		{"container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.",
			func(c containerUsage) (float64, time.Time) { return seconds(c.cpu.total), c.cpu.at }},
		{"container_memory_working_set_bytes", "gauge", "Current working set in bytes.",
			func(c containerUsage) (float64, time.Time) { return float64(c.memory.workingSet), c.memory.at }},
		{"container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed",
			func(c containerUsage) (float64, time.Time) { return float64(c.memory.used), c.memory.at }},
		{"container_memory_rss", "gauge", "Size of RSS in bytes.",
			func(c containerUsage) (float64, time.Time) { return float64(c.memory.resident), c.memory.at }},
		{"container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container on this filesystem.",
			func(c containerUsage) (float64, time.Time) { return float64(c.written), time.Time{} }},
		{"container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.",
			func(c containerUsage) (float64, time.Time) { return seconds(uint64(c.started.UnixNano())), time.Time{} }},
	} {
		e.family(m.name, m.kind, m.help)
		for _, p := range pods {
			for _, c := range p.containers {
				v, at := m.value(c)
				e.sample(m.name, v, at, "container", c.name, "id", c.id, "image", c.image, "name", c.id, "namespace", p.namespace, "pod", p.name)
			}
		}
	}
	for _, m := range []struct {
		name, help string
		value      func(networkUsage) uint64
	}{
		{"container_network_receive_bytes_total", "Cumulative count of bytes received", func(n networkUsage) uint64 { return n.received }},
		{"container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", func(n networkUsage) uint64 { return n.sent }},
		{"container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", func(n networkUsage) uint64 { return n.inErrs }},
		{"container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", func(n networkUsage) uint64 { return n.outErrs }},
	} {
		e.family(m.name, "counter", m.help)
		for _, p := range pods {
			for _, n := range p.interfaces {
				e.sample(m.name, float64(m.value(n)), n.at, "interface", n.name, "namespace", p.namespace, "pod", p.name)
			}
		}
	}
	e.send(w)
}
