// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podUsage is what a pod uses, as the runtime counts it.
type podUsage struct {
	namespace, name, uid string
	cpu                  counter
	memory               memory
	started              time.Time
	containers           []containerUsage
	interfaces           []networkUsage
	processes            uint64
}

type containerUsage struct {
	name, id, image string
	started         time.Time
	cpu             counter
	memory          memory
	// written is what the container's writable layer holds, in bytes.
	written uint64
}

// counter is CPU time.
type counter struct {
	at time.Time
	// total is in nanoseconds of a core, rate in nanoseconds a second; both 0 while unknown.
	total, rate uint64
}

// memory is in bytes.
type memory struct {
	at                               time.Time
	workingSet, used, resident, free uint64
}

type networkUsage struct {
	name                            string
	at                              time.Time
	received, sent, inErrs, outErrs uint64
}

// usage asks the runtime what the node's pods use. Pods are in order, and so are their containers. A runtime without
// statistics of sandboxes, such as containerd 1.6, tells only what containers use.
func (s *Server) usage(ctx context.Context) ([]podUsage, error) {
	containers, err := s.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil {
		return nil, fmt.Errorf("listing the containers: %w", err)
	}
	stats, err := s.Runtime.ListContainerStats(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("asking what the containers use: %w", err)
	}
	sandboxes, err := s.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil && status.Code(err) != codes.Unimplemented {
		return nil, fmt.Errorf("asking what the pods use: %w", err)
	}
	return gatherUsage(containers, stats, sandboxes), nil
}

// gatherUsage is pure: it puts together what the runtime says in three lists.
func gatherUsage(containers []*runtimeapi.Container, stats []*runtimeapi.ContainerStats, sandboxes []*runtimeapi.PodSandboxStats) []podUsage {
	pods := map[string]*podUsage{}
	pod := func(labels map[string]string) *podUsage {
		uid := labels[labelPodUID]
		if pods[uid] == nil {
			pods[uid] = &podUsage{namespace: labels[labelPodNamespace], name: labels[labelPodName], uid: uid}
		}
		return pods[uid]
	}
	for _, s := range sandboxes {
		labels, linux := s.GetAttributes().GetLabels(), s.GetLinux()
		if labels[labelPodUID] == "" {
			continue // No pod of ours.
		}
		p := pod(labels)
		p.cpu, p.memory, p.processes = cpuOf(linux.GetCpu()), memoryOf(linux.GetMemory()), linux.GetProcess().GetProcessCount().GetValue()
		network := linux.GetNetwork()
		for _, i := range append([]*runtimeapi.NetworkInterfaceUsage{network.GetDefaultInterface()}, network.GetInterfaces()...) {
			if i != nil {
				p.interfaces = append(p.interfaces, networkUsage{
					name: i.GetName(), at: time.Unix(0, network.GetTimestamp()), received: i.GetRxBytes().GetValue(), sent: i.GetTxBytes().GetValue(),
					inErrs: i.GetRxErrors().GetValue(), outErrs: i.GetTxErrors().GetValue(),
				})
			}
		}
	}
	running := map[string]*runtimeapi.Container{}
	for _, c := range containers {
		running[c.GetId()] = c
	}
	for _, c := range stats {
		known := running[c.GetAttributes().GetId()]
		if known == nil || known.GetLabels()[labelPodUID] == "" {
			continue // It has ended, or is no pod's of ours.
		}
		p := pod(known.GetLabels())
		p.containers = append(p.containers, containerUsage{
			name: known.GetLabels()[labelContainerName], id: known.GetId(), image: known.GetImage().GetImage(),
			started: time.Unix(0, known.GetCreatedAt()), cpu: cpuOf(c.GetCpu()), memory: memoryOf(c.GetMemory()),
			written: c.GetWritableLayer().GetUsedBytes().GetValue(),
		})
	}
	out := make([]podUsage, 0, len(pods))
	for _, p := range pods {
		slices.SortFunc(p.containers, func(a, b containerUsage) int { return cmp.Compare(a.name, b.name) })
		for _, c := range p.containers {
			if p.started.IsZero() || c.started.Before(p.started) {
				p.started = c.started
			}
		}
		p.sum()
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b podUsage) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.uid, b.uid))
	})
	return out
}

// sum takes the containers together where the runtime doesn't count the pod.
func (p *podUsage) sum() {
	if p.cpu.at.IsZero() {
		for _, c := range p.containers {
			p.cpu = counter{at: c.cpu.at, total: p.cpu.total + c.cpu.total, rate: p.cpu.rate + c.cpu.rate}
		}
	}
	if p.memory.at.IsZero() {
		for _, c := range p.containers {
			p.memory = memory{
				at: c.memory.at, workingSet: p.memory.workingSet + c.memory.workingSet, used: p.memory.used + c.memory.used,
				resident: p.memory.resident + c.memory.resident,
			}
		}
	}
}

func cpuOf(c *runtimeapi.CpuUsage) counter {
	if c == nil {
		return counter{}
	}
	return counter{time.Unix(0, c.GetTimestamp()), c.GetUsageCoreNanoSeconds().GetValue(), c.GetUsageNanoCores().GetValue()}
}

func memoryOf(m *runtimeapi.MemoryUsage) memory {
	if m == nil {
		return memory{}
	}
	return memory{
		at: time.Unix(0, m.GetTimestamp()), workingSet: m.GetWorkingSetBytes().GetValue(), used: m.GetUsageBytes().GetValue(),
		resident: m.GetRssBytes().GetValue(), free: m.GetAvailableBytes().GetValue(),
	}
}
