// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command pinnace is Pinnace: `up` runs all of it on one machine, `manager` and `agent` run its parts alone, and the
// rest are the user's tools. kubectl's plugin, cmd/kubectl-pinnace, hands these over to it, under its own name.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pinnace-dev/pinnace/internal/version"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "pinnace: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return newRootCommand().ExecuteContext(ctx)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pinnace",
		Short: "The workload half of Kubernetes on any API server",
		Long: `Pinnace runs pods, workloads, services and volumes as custom resources on any
Kubernetes API server: one that is there already, or one that ` + "`pinnace up`" + ` starts.`,
		Version:       version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	if filepath.Base(os.Args[0]) == "kubectl-pinnace" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl pinnace"}
	}
	root.SetVersionTemplate("pinnace {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "use", Title: "Use:"})
	for group, commands := range map[string][]*cobra.Command{
		"run": {newUpCommand(), newManagerCommand(), newAgentCommand(), newInstallCommand()},
		"use": {newConvertCommand(), newImageCommand()},
	} {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	return root
}
