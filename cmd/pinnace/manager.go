// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// newManagerCommand returns `pinnace manager`.
func newManagerCommand() *cobra.Command {
	o := setup.NewManagerOptions()
	command := &cobra.Command{
		Use:   "manager",
		Short: "Run the controllers: workloads, placement, services, nodes",
		Long: `Manager runs Pinnace's controllers against an API server on which Pinnace is
installed (pinnace install). Without --kubeconfig it uses $KUBECONFIG, or the
service account of the pod that it runs in. Run as many as you like: with leader
election one works and the others wait.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return setup.RunManager(command.Context(), o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig `file`")
	flags.BoolVar(&o.LeaderElect, "leader-elect", o.LeaderElect, "work only while holding the lease; wait otherwise")
	flags.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", o.LeaderElectionNamespace, "`namespace` of the lease")
	flags.StringVar(&o.ClusterCIDR, "cluster-cidr", o.ClusterCIDR, "`network` of the pods; each node gets a /24 of it")
	flags.StringVar(&o.ServiceCIDR, "service-cidr", o.ServiceCIDR, "`network` of the services' addresses")
	addSubresourcesFlags(flags, &o.Subresources)
	addLogFlags(flags, &o.Log)
	return command
}

func addSubresourcesFlags(flags *pflag.FlagSet, o *setup.SubresourcesOptions) {
	flags.StringVar(&o.Address, "subresources-address", "", "`address` on which log, exec and the like of pods are served to the API server, such as :10351; empty: not at all")
	flags.StringVar(&o.ExternalName, "subresources-external-name", "", "`address` at which the API server reaches it; empty: by the Service pinnace-subresources")
	flags.StringVar(&o.CertFile, "subresources-cert-file", "", "`file` with its certificate, for pinnace-subresources.pinnace-system.svc")
	flags.StringVar(&o.KeyFile, "subresources-key-file", "", "`file` with the certificate's key")
	flags.StringVar(&o.CAFile, "subresources-ca-file", "", "`file` with the certificate's authority, which is told to the API server")
	flags.StringVar(&o.AgentCAFile, "agent-ca-file", "", "`file` with the authorities of the agents' certificates; without, an agent's key must be the one that its Node names")
	flags.StringVar(&o.AgentCertFile, "agent-cert-file", "", "`file` with the certificate that is shown to agents; without, the kubeconfig's")
	flags.StringVar(&o.AgentKeyFile, "agent-key-file", "", "`file` with that certificate's key")
}
