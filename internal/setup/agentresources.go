// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/controllers/agent/node"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/eviction"
	"github.com/pinnace-dev/pinnace/internal/machine"
)

// AgentResourceOptions say what of the machine pods may have, and when they have to go. The kubelet's flags.
type AgentResourceOptions struct {
	// SystemReserved and KubeReserved are kept from pods: for the system, and for agent and runtime.
	SystemReserved, KubeReserved map[string]string
	// Eviction says when pods have to go. A whole number of seconds bounds what they get to end for a soft threshold.
	Eviction         eviction.Options
	EvictionGraceMax int
	// LookEvery is how often is looked at what the node lacks, and at what its status says of that; 0: each 10 s, upstream's.
	LookEvery time.Duration
	// ClusterDNS are the addresses that pods ask for names. Empty: those that the node asks.
	ClusterDNS []string
	// ClusterDomain is the domain of the cluster's names.
	ClusterDomain string
}

func newAgentResourceOptions() AgentResourceOptions {
	return AgentResourceOptions{Eviction: eviction.Defaults(), ClusterDomain: "cluster.local"}
}

// reservable are the resources that may be reserved; pid only bounds the pods' cgroup.
var reservable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "pid"}

func parseReserved(flag string, texts map[string]string) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for name, text := range texts {
		if !slices.Contains(reservable, corev1.ResourceName(name)) {
			return nil, fmt.Errorf("%s has %q: cpu, memory, ephemeral-storage and pid can be reserved", flag, name)
		}
		q, err := resource.ParseQuantity(text)
		if err != nil || q.Sign() < 0 {
			return nil, fmt.Errorf("%s has %q for %s: give an amount such as 500m or 1Gi", flag, text, name)
		}
		out[corev1.ResourceName(name)] = q
	}
	return out, nil
}

// nodeResources is what follows from the options on one machine.
type nodeResources struct {
	capacity corev1.ResourceList
	// kept is what is reserved without, reserved with what eviction keeps free.
	kept, reserved corev1.ResourceList
	thresholds     []eviction.Threshold
	dns            []string
}

func (o AgentResourceOptions) resolve(capacity corev1.ResourceList) (*nodeResources, error) {
	system, err := parseReserved("--system-reserved", o.SystemReserved)
	if err != nil {
		return nil, err
	}
	kube, err := parseReserved("--kube-reserved", o.KubeReserved)
	if err != nil {
		return nil, err
	}
	thresholds, err := o.Eviction.Thresholds()
	if err != nil {
		return nil, err
	}
	for _, server := range o.ClusterDNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return nil, fmt.Errorf("--cluster-dns has %q, which is no address: give one such as 10.97.0.10", server)
		}
	}
	out := &nodeResources{capacity: capacity, thresholds: thresholds, dns: o.ClusterDNS, kept: sum(system, kube)}
	out.reserved = sum(out.kept, eviction.Reserved(thresholds, capacity))
	for name, q := range out.reserved {
		if have, ok := capacity[name]; ok && q.Cmp(have) > 0 {
			return nil, fmt.Errorf("%s of %s are reserved and kept free by eviction, and the machine has %s: reserve less", q.String(), name, have.String())
		}
	}
	return out, nil
}

func sum(lists ...corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, list := range lists {
		for name, q := range list {
			total := out[name].DeepCopy()
			total.Add(q)
			out[name] = total
		}
	}
	return out
}

// allocatable is what pods may have together, by the scheduler's count.
func (n *nodeResources) allocatable() corev1.ResourceList {
	return node.Allocatable(n.capacity, n.reserved)
}

// enforce bounds the cgroup of all pods by what isn't reserved. What eviction keeps free they may use for the moment that eviction takes.
func (n *nodeResources) enforce(root string) error {
	pods := node.Allocatable(n.capacity, n.kept)
	limits := cgroup.Limits{CPUShares: cgroup.Shares(pods.Cpu().MilliValue()), Memory: pods.Memory().Value()}
	if pid, ok := n.kept["pid"]; ok {
		_, most, err := machine.PIDs()
		if err != nil {
			return err
		}
		limits.PIDs = max(1, most-pid.Value())
	}
	if err := cgroup.Apply(root, limits); err != nil {
		return fmt.Errorf("setting up the cgroup of all pods: %w", err)
	}
	return nil
}

// eviction wires the loop that guards the node.
func (n *nodeResources) eviction(o AgentOptions, on *agent.Node, stats agent.Stats, reclaim func(context.Context) error) *agent.Eviction {
	most := node.Allocatable(n.capacity, n.kept)
	return &agent.Eviction{
		Thresholds: n.thresholds, Transition: o.Resources.Eviction.Transition,
		GraceMost: time.Duration(o.Resources.EvictionGraceMax) * time.Second, Every: o.Resources.LookEvery, Reclaim: reclaim,
		Meter: &agent.MachineMeter{Node: on, Runtime: stats, DataDir: o.DataDir, PodsMost: most.Memory().Value()},
	}
}

// pressure tells the node's status what the loop has found.
func pressure(pods *agent.Reconciler, name string) func() (node.Pressure, error) {
	return func() (node.Pressure, error) {
		holds := pods.Conditions(name)
		return node.Pressure{
			Memory: slices.Contains(holds, corev1.NodeMemoryPressure), Disk: slices.Contains(holds, corev1.NodeDiskPressure),
			PIDs: slices.Contains(holds, corev1.NodePIDPressure),
		}, nil
	}
}

// Statements are thresholds as one flag, which the kubelet separates by commas.
type Statements struct{ Of *[]string }

// String is what stands there.
func (s Statements) String() string {
	if s.Of == nil {
		return ""
	}
	return strings.Join(*s.Of, ",")
}

// Set takes the place of what stood there.
func (s Statements) Set(text string) error {
	*s.Of = nil
	if text != "" {
		*s.Of = strings.Split(text, ",")
	}
	return nil
}

// Type names the value in help.
func (s Statements) Type() string { return "thresholds" }
