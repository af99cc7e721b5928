// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pinnace-dev/pinnace/internal/image"
)

// defaultDataDir is where `pinnace up` keeps everything, unless told otherwise.
const defaultDataDir = "/var/lib/pinnace"

func newImageCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "image",
		Short: "Put images into the registry of a running `pinnace up`, and list them",
	}
	dataDir := command.PersistentFlags().String("data-dir", defaultDataDir, "data folder of the running `pinnace up`")
	command.AddCommand(newImageLoadCommand(dataDir), newImageListCommand(dataDir))
	return command
}

func newImageLoadCommand(dataDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE.tar...",
		Short: "Load images from tar files",
		Long: `Load images from tar files as docker save, podman save, ctr image export, skopeo (oci-archive:) or hack/image write
them, gzipped or not. Each image keeps its own full name: pods name it as they would anywhere else.`,
		Example: "  docker save -o hello.tar pinnace.dev/hello:v1\n  pinnace image load hello.tar",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which file? Name at least one tar file: pinnace image load FILE.tar")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := imageClient(*dataDir)
			if err != nil {
				return err
			}
			for _, path := range args {
				refs, err := client.Load(cmd.Context(), path)
				for _, ref := range refs {
					fmt.Fprintf(cmd.OutOrStdout(), "Loaded %s\n", ref)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newImageListCommand(dataDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images that were loaded",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := imageClient(*dataDir)
			if err != nil {
				return err
			}
			return listImages(cmd.Context(), cmd, client)
		},
	}
}

func listImages(ctx context.Context, cmd *cobra.Command, client *image.Client) error {
	items, err := client.List(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tDIGEST\tSIZE")
	for _, item := range items {
		size := "-" // an index: its images have sizes of their own
		if item.Bytes > 0 {
			size = fmt.Sprintf("%.1f MB", float64(item.Bytes)/1e6)
		}
		fmt.Fprintf(table, "%s\t%.19s\t%s\n", item.Reference, item.Digest, size)
	}
	return table.Flush()
}

func imageClient(dataDir string) (*image.Client, error) {
	info, err := image.ReadInfo(dataDir)
	if err != nil {
		return nil, err
	}
	return image.NewClient(info)
}
