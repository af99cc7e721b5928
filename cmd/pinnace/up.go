// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pinnace-dev/pinnace/internal/up"
)

const upLong = `Up runs the whole of Pinnace on this machine: etcd and kube-apiserver, the generic
loops of kube-controller-manager, an image registry, containerd, Pinnace's manager
and a node agent. It needs root, unless the nodes are simulated.

Everything lives in the data folder and survives a restart: certificates, objects,
images and, with --keep-pods, the containers themselves, which run on. Processes
that die are started again. Ctrl-C stops everything.`

const upExample = `  # One node; then, in another terminal, what the last lines say
  pinnace up

  # Three nodes, each with its own network and containerd
  pinnace up --nodes 3

  # A hundred nodes without containers and without root
  pinnace up --nodes 100 --runtime simulated --data-dir /tmp/pinnace

  # With a containerd that is there already, whose pod network Pinnace sets up
  pinnace up --runtime-endpoint unix:///run/containerd/containerd.sock \
    --agent-arg cni-conf-dir=/etc/cni/net.d`

// newUpCommand returns `pinnace up`.
func newUpCommand() *cobra.Command {
	o := up.NewOptions()
	command := &cobra.Command{
		Use:     "up",
		Short:   "Run all of Pinnace on this machine",
		Long:    upLong,
		Example: upExample,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			o.Out = command.OutOrStdout()
			if err := checkAgentArgs(o.AgentArgs); err != nil {
				return err
			}
			return up.Run(command.Context(), o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.DataDir, "data-dir", o.DataDir, "`folder` for everything that survives a restart")
	flags.StringVar(&o.AssetsDir, "assets-dir", o.AssetsDir, "`folder` with etcd, kube-apiserver, containerd, …; $KUBEBUILDER_ASSETS sets it too")
	flags.IntVar(&o.Nodes, "nodes", o.Nodes, "how many nodes this machine plays")
	flags.StringVar(&o.Runtime, "runtime", o.Runtime, "what runs containers: containerd, or simulated for none")
	flags.StringVar(&o.RuntimeEndpoint, "runtime-endpoint", "", "`socket` of a container runtime to use instead of starting containerd, as unix:///path")
	flags.IntVar(&o.APIPort, "api-port", o.APIPort, "`port` of the API server")
	flags.IntVar(&o.RegistryPort, "registry-port", o.RegistryPort, "`port` of the image registry")
	flags.StringVar(&o.PodCIDR, "pod-cidr", o.PodCIDR, "`network` of the pods; each node gets a /24 of it (default 10.244.0.0/16, and 10.128.0.0/14 for simulated nodes)")
	flags.StringVar(&o.ServiceCIDR, "service-cidr", o.ServiceCIDR, "`network` of the services' addresses")
	flags.StringVar(&o.AuditPolicyFile, "audit-policy-file", "", "audit policy `file` of the API server; the log is DATA-DIR/log/audit.log")
	flags.BoolVar(&o.PlainSecrets, "plain-secrets", false, "store secrets without encryption")
	flags.BoolVar(&o.AllAPIGroups, "all-api-groups", false, "also serve the native API groups that Pinnace replaces, at the price of memory")
	flags.StringArrayVar(&o.AgentArgs, "agent-arg", nil, "further `flag` of pinnace agent, as eviction-hard=memory.available<200Mi; give it once for each")
	flags.BoolVar(&o.KeepPods, "keep-pods", false, "leave containers running at the end; the next start takes them over")
	return command
}

// checkAgentArgs tells of a mistyped flag at once: the agent itself would only die of it again and again.
func checkAgentArgs(args []string) error {
	agent := newAgentCommand()
	for _, arg := range args {
		if arg == "" || strings.HasPrefix(arg, "-") {
			return fmt.Errorf("--agent-arg %q: give a flag of pinnace agent without dashes, as sync-frequency=30s", arg)
		}
		if err := agent.ParseFlags([]string{"--" + arg}); err != nil {
			return fmt.Errorf("--agent-arg %q: %w; `pinnace agent --help` lists what there is", arg, err)
		}
	}
	return nil
}
