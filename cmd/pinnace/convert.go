// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pinnace-dev/pinnace/internal/convert"
)

const convertLong = `Convert rewrites Kubernetes manifests so that Pinnace runs them: the apiVersion
of every kind that Pinnace carries gets the suffix .pinnace.dev (apps/v1 becomes
apps.pinnace.dev/v1, v1 becomes core.pinnace.dev/v1). With --reverse it goes back.

Nothing else changes: order, comments, anchors, blank lines and quoting stay as
they are, byte for byte. Documents that Pinnace doesn't carry pass through, and
standard error says which ones and why.

All input is read and converted before the first byte is written. When some of
it can't be read, nothing is written and the exit status is 1.`

const convertExample = `  # Run what runs on Kubernetes
  pinnace convert -f deployment.yaml | kubectl apply --server-side -f -

  # A folder and the folders in it
  pinnace convert -R -f manifests/ > pinnace.yaml

  # A chart, a kustomization
  helm template shop ./chart | pinnace convert | kubectl apply --server-side -f -
  kubectl kustomize overlays/prod | pinnace convert | kubectl apply --server-side -f -

  # Back to Kubernetes' own kinds
  pinnace convert --reverse -f pinnace.yaml`

// newConvertCommand returns `pinnace convert`.
func newConvertCommand() *cobra.Command {
	var paths []string
	var recursive, reverse bool
	command := &cobra.Command{
		Use:     "convert [-f PATH]... [-R] [--reverse]",
		Short:   "Rewrite Kubernetes manifests to Pinnace's kinds, or back",
		Long:    convertLong,
		Example: convertExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("convert doesn't take %q as an argument: name files and folders with -f %s", args[0], args[0])
			}
			return nil
		},
		SilenceUsage:          true,
		DisableFlagsInUseLine: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if len(paths) == 0 {
				if isTerminal(command.InOrStdin()) {
					return errors.New("there is nothing to convert: name a file or a folder with -f PATH, or pipe YAML in")
				}
				paths = []string{convert.StandardInput}
			}
			direction := convert.ToPinnace
			if reverse {
				direction = convert.ToUpstream
			}
			return runConvert(command, paths, recursive, direction)
		},
	}
	flags := command.Flags()
	flags.StringSliceVarP(&paths, "filename", "f", nil, "file or folder to read, - for standard input; may be given several times (default: standard input)")
	flags.BoolVarP(&recursive, "recursive", "R", false, "also read the folders in the folders given with -f")
	flags.BoolVar(&reverse, "reverse", false, "turn Pinnace's kinds into upstream's")
	return command
}

// runConvert writes the converted stream to standard output, and before it a
// line on standard error for each document that was left alone.
func runConvert(command *cobra.Command, paths []string, recursive bool, direction convert.Direction) error {
	streams, err := convert.Read(paths, recursive, command.InOrStdin())
	if err != nil {
		return err
	}
	result, err := convert.Streams(streams, direction)
	if err != nil {
		return err
	}
	for _, note := range result.Notes {
		fmt.Fprintf(command.ErrOrStderr(), "convert: %s\n", note)
	}
	if result.Documents == 0 {
		fmt.Fprintln(command.ErrOrStderr(), "convert: there was no document in what was read.")
	}
	if _, err := command.OutOrStdout().Write(result.Output); err != nil {
		return fmt.Errorf("writing the converted manifests: %w", err)
	}
	return nil
}

func isTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
