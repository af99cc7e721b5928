// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

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
	addLogFlags(flags, &o.Log)
	return command
}
