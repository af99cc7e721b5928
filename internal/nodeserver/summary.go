// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinnace-dev/pinnace/internal/access"
)

// summary is what the kubelet's /stats/summary answers (k8s.io/kubelet/pkg/apis/stats/v1alpha1), in the parts that the
// runtime and the kernel tell cheaply.
type summary struct {
	Node nodeSummary  `json:"node"`
	Pods []podSummary `json:"pods"`
}

type nodeSummary struct {
	NodeName string         `json:"nodeName"`
	CPU      *cpuSummary    `json:"cpu,omitempty"`
	Memory   *memorySummary `json:"memory,omitempty"`
}

type podSummary struct {
	PodRef struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	} `json:"podRef"`
	StartTime    metav1.Time        `json:"startTime"`
	Containers   []containerSummary `json:"containers"`
	CPU          *cpuSummary        `json:"cpu,omitempty"`
	Memory       *memorySummary     `json:"memory,omitempty"`
	Network      *networkSummary    `json:"network,omitempty"`
	ProcessStats *processSummary    `json:"process_stats,omitempty"`
}

type containerSummary struct {
	Name      string         `json:"name"`
	StartTime metav1.Time    `json:"startTime"`
	CPU       *cpuSummary    `json:"cpu,omitempty"`
	Memory    *memorySummary `json:"memory,omitempty"`
	Rootfs    struct {
		UsedBytes uint64 `json:"usedBytes"`
	} `json:"rootfs"`
}

type cpuSummary struct {
	Time                 metav1.Time `json:"time"`
	UsageNanoCores       uint64      `json:"usageNanoCores,omitempty"`
	UsageCoreNanoSeconds uint64      `json:"usageCoreNanoSeconds"`
}

type memorySummary struct {
	Time            metav1.Time `json:"time"`
	AvailableBytes  uint64      `json:"availableBytes,omitempty"`
	UsageBytes      uint64      `json:"usageBytes,omitempty"`
	WorkingSetBytes uint64      `json:"workingSetBytes"`
	RSSBytes        uint64      `json:"rssBytes,omitempty"`
}

type networkSummary struct {
	Time       metav1.Time        `json:"time"`
	Interfaces []interfaceSummary `json:"interfaces"`
}

type interfaceSummary struct {
	Name     string `json:"name"`
	RxBytes  uint64 `json:"rxBytes"`
	RxErrors uint64 `json:"rxErrors"`
	TxBytes  uint64 `json:"txBytes"`
	TxErrors uint64 `json:"txErrors"`
}

type processSummary struct {
	ProcessCount uint64 `json:"process_count"`
}

func (s *Server) serveSummary(w http.ResponseWriter, r *http.Request) {
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
	out := summary{Node: nodeSummary{NodeName: s.NodeName, CPU: cpuJSON(cpu), Memory: memoryJSON(mem)}, Pods: []podSummary{}}
	for _, p := range pods {
		out.Pods = append(out.Pods, podJSON(p))
	}
	access.WriteJSON(w, http.StatusOK, out)
}

func podJSON(p podUsage) podSummary {
	out := podSummary{StartTime: metav1.NewTime(p.started), CPU: cpuJSON(p.cpu), Memory: memoryJSON(p.memory), Containers: []containerSummary{}}
	out.PodRef.Name, out.PodRef.Namespace, out.PodRef.UID = p.name, p.namespace, p.uid
	for _, c := range p.containers {
		one := containerSummary{Name: c.name, StartTime: metav1.NewTime(c.started), CPU: cpuJSON(c.cpu), Memory: memoryJSON(c.memory)}
		one.Rootfs.UsedBytes = c.written
		out.Containers = append(out.Containers, one)
	}
	for _, n := range p.interfaces {
		if out.Network == nil {
			out.Network = &networkSummary{Time: metav1.NewTime(n.at)}
		}
		out.Network.Interfaces = append(out.Network.Interfaces, interfaceSummary{n.name, n.received, n.inErrs, n.sent, n.outErrs})
	}
	if p.processes > 0 {
		out.ProcessStats = &processSummary{p.processes}
	}
	return out
}

func cpuJSON(c counter) *cpuSummary {
	if c.at.IsZero() {
		return nil
	}
	return &cpuSummary{metav1.NewTime(c.at), c.rate, c.total}
}

func memoryJSON(m memory) *memorySummary {
	if m.at.IsZero() {
		return nil
	}
	return &memorySummary{metav1.NewTime(m.at), m.free, m.used, m.workingSet, m.resident}
}
