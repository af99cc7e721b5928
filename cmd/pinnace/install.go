// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// newInstallCommand returns `pinnace install`.
func newInstallCommand() *cobra.Command {
	var kubeconfig string
	command := &cobra.Command{
		Use:   "install",
		Short: "Install Pinnace's kinds, roles and policies on an API server",
		Long: `Install applies Pinnace's CustomResourceDefinitions, roles and admission policies
server-side, and waits until the kinds are served. Doing it again changes nothing;
doing it with a newer version upgrades. It needs an administrator's kubeconfig.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := setup.Install(command.Context(), kubeconfig); err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), "Pinnace is installed. Next: pinnace manager, and pinnace agent on each node.")
			return nil
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig `file`; $KUBECONFIG unless given")
	return command
}
