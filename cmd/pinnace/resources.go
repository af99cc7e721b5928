// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/pflag"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// addResourceFlags adds what of the machine pods may have, and when they have to go; the kubelet's names.
func addResourceFlags(flags *pflag.FlagSet, o *setup.AgentResourceOptions) {
	flags.StringToStringVar(&o.SystemReserved, "system-reserved", nil, "`resources` kept for the system, as cpu=500m,memory=1Gi; also ephemeral-storage and pid")
	flags.StringToStringVar(&o.KubeReserved, "kube-reserved", nil, "`resources` kept for agent and runtime, like --system-reserved")
	flags.Var(setup.Statements{Of: &o.Eviction.Hard}, "eviction-hard", "`thresholds` below which pods are evicted at once; signals are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available; empty for none")
	flags.Var(setup.Statements{Of: &o.Eviction.Soft}, "eviction-soft", "`thresholds` below which pods are evicted once --eviction-soft-grace-period is over")
	flags.Var(setup.Statements{Of: &o.Eviction.SoftGrace}, "eviction-soft-grace-period", "`times` by signal, as memory.available=1m30s")
	flags.Var(setup.Statements{Of: &o.Eviction.Reclaim}, "eviction-minimum-reclaim", "`amounts` by signal that eviction frees beyond the threshold, as nodefs.available=2Gi")
	flags.DurationVar(&o.Eviction.Transition, "eviction-pressure-transition-period", o.Eviction.Transition, "`time` for which a condition of pressure stays after what lacked is there again")
	flags.IntVar(&o.EvictionGraceMax, "eviction-max-pod-grace-period", 0, "`seconds` that a pod gets to end at most when a soft threshold evicts it")
	flags.StringSliceVar(&o.ClusterDNS, "cluster-dns", nil, "`addresses` that pods ask for names; unless given those that the node asks")
	flags.StringVar(&o.ClusterDomain, "cluster-domain", o.ClusterDomain, "`domain` of the cluster's names")
}
