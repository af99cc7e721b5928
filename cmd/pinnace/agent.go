// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// newAgentCommand returns `pinnace agent`.
func newAgentCommand() *cobra.Command {
	o := setup.NewAgentOptions()
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run a node: its pods, network and status",
		Long: `Agent makes this machine a node: it runs the pods that are placed here through a
container runtime, programs the addresses of services, and reports. Containers run
on while it is stopped, and it takes them over when it starts again.`,
		Example: `  pinnace agent --kubeconfig edge-1.kubeconfig --node-name edge-1 \
    --runtime-endpoint unix:///run/containerd/containerd.sock`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return setup.RunAgent(command.Context(), o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig `file`")
	flags.StringVar(&o.NodeName, "node-name", o.NodeName, "the node's `name`; the host's name unless given")
	flags.StringVar(&o.NodeIP, "node-ip", "", "`address` under which other nodes reach this one; the default route's unless given")
	flags.StringVar(&o.DataDir, "data-dir", o.DataDir, "`folder` for volumes and logs")
	flags.StringVar(&o.RuntimeEndpoint, "runtime-endpoint", o.RuntimeEndpoint, "`socket` of the container runtime, as unix:///path")
	flags.StringVar(&o.CgroupRoot, "cgroup-root", o.CgroupRoot, "parent `cgroup` of the pods, this agent's alone: what runs below it and is of no pod of this node is killed")
	flags.StringVar(&o.CNIConfDir, "cni-conf-dir", o.CNIConfDir, "`folder` into which the pod network's configuration is written; empty leaves the network to others")
	flags.StringVar(&o.ClusterCIDR, "cluster-cidr", o.ClusterCIDR, "`network` of all pods")
	flags.StringVar(&o.ServiceCIDR, "service-cidr", o.ServiceCIDR, "`network` of the services' addresses")
	flags.StringVar(&o.PacketTable, "packet-table", o.PacketTable, "nftables `table` of services and host ports, this agent's alone; two agents in one network namespace need two")
	flags.IntVar(&o.Simulate, "simulate", 0, "play this `number` of nodes, NODE-NAME-1 and so on, without any runtime")
	flags.StringVar(&o.Server.Address, "listen-address", "", "`address` of the agent's server, for logs, exec and metrics; unless given port 10350 of the node's address, or any that is free")
	flags.StringVar(&o.Server.CertFile, "tls-cert-file", "", "`file` with the server's certificate; unless given the agent makes one and tells its key in the Node")
	flags.StringVar(&o.Server.KeyFile, "tls-private-key-file", "", "`file` with the certificate's key")
	flags.StringVar(&o.Server.ClientCAFile, "client-ca-file", "", "`file` with the authorities of clients' certificates; without, only bearer tokens tell who asks")
	addKeepFlags(flags, &o.Keep)
	addResourceFlags(flags, &o.Resources)
	flags.DurationVar(&o.SyncFrequency, "sync-frequency", o.SyncFrequency, "`time` after which mounted ConfigMaps, Secrets and tokens are brought up to date")
	flags.StringVar(&o.StaticPodDir, "pod-manifest-path", "", "`folder` with manifests of static pods, which run on this node without an API server")
	addDownFlags(flags, &o.Down)
	flags.StringSliceVar(&o.UnsafeSysctls, "allowed-unsafe-sysctls", nil, "`names` of sysctls that pods may set beside the safe ones, such as kernel.msg*,net.core.somaxconn")
	addLogFlags(flags, &o.Log)
	return command
}

// addKeepFlags names the flags as the kubelet does, where it has them.
func addKeepFlags(flags *pflag.FlagSet, o *setup.AgentKeepOptions) {
	flags.StringVar(&o.LogMaxSize, "container-log-max-size", o.LogMaxSize, "`size` at which a container's log is rotated; -1 for never")
	flags.IntVar(&o.LogMaxFiles, "container-log-max-files", o.LogMaxFiles, "`number` of log files of a container, at least 2")
	flags.IntVar(&o.ImageGCHigh, "image-gc-high-threshold", o.ImageGCHigh, "`percentage` of the disk in use from which on unused images are removed; 100 for never")
	flags.IntVar(&o.ImageGCLow, "image-gc-low-threshold", o.ImageGCLow, "`percentage` of the disk in use down to which they are removed")
	flags.DurationVar(&o.ImageMinimumAge, "minimum-image-ttl-duration", o.ImageMinimumAge, "`time` that an unused image stays at least")
	flags.IntVar(&o.DeathLines, "death-log-lines", o.DeathLines, "`number` of last lines of the log kept with each death of a container, at most 10; 0 for none")
}

func addDownFlags(flags *pflag.FlagSet, o *setup.AgentDownOptions) {
	flags.DurationVar(&o.Grace, "shutdown-grace-period", 0, "`time` for all pods to end, as failed, when the agent gets SIGTERM, such as at the machine's shutdown; 0 leaves them running")
	flags.DurationVar(&o.Critical, "shutdown-grace-period-critical-pods", 0, "`part` of the shutdown's time that is for critical pods, which are stopped last")
	flags.BoolVar(&o.StopPods, "stop-pods", false, "stop the pods' containers at SIGTERM, and tell; the next agent runs the same pods again")
}

func addLogFlags(flags *pflag.FlagSet, o *setup.LogOptions) {
	flags.IntVarP(&o.Verbosity, "verbosity", "v", 0, "how much is logged: 0 what an operator must know, 1 decisions, 2 flow")
	flags.BoolVar(&o.JSON, "log-json", false, "log as JSON")
}
