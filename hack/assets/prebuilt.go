// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// prebuiltVariable names a folder of control plane binaries, as it does for
// controller-runtime's envtest package.
const prebuiltVariable = "KUBEBUILDER_ASSETS"

// prebuiltSet is what such a folder has to hold. They are taken together or not at all, for
// kubectl and kube-apiserver should be of about one age. The rest is taken only where the folder
// holds all that is wanted, such as another checkout's bin/assets: containerd and its shim, too,
// should be of one age.
var prebuiltSet = []string{"etcd", "kube-apiserver", "kubectl"}

// usePrebuilt returns the assets with those of prebuiltSet, or all of them,
// linked from dir instead of built, and a sentence for people on what it decided; without one
// it had nothing to decide. out is where assets go: someone who points the
// variable there means the assets that we build ourselves.
func usePrebuilt(assets []asset, dir, out string) ([]asset, string) {
	if dir == "" || sameFolder(dir, out) {
		return assets, ""
	}
	if !slices.ContainsFunc(assets, isPrebuilt) {
		return assets, ""
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return assets, fmt.Sprintf("%s is left alone: %v.", prebuiltVariable, err)
	}
	var absent []string
	for _, name := range prebuiltSet {
		if !isProgram(filepath.Join(dir, name)) {
			absent = append(absent, name)
		}
	}
	if len(absent) > 0 {
		return assets, fmt.Sprintf("%s is left alone: %s holds no program %s.", prebuiltVariable, dir, strings.Join(absent, ", "))
	}
	whole := !slices.ContainsFunc(assets, func(a asset) bool { return !isProgram(filepath.Join(dir, a.name)) })
	taken := strings.Join(prebuiltSet, ", ")
	if whole {
		taken = "all programs"
	}
	assets = slices.Clone(assets)
	for i, a := range assets {
		if whole || isPrebuilt(a) {
			assets[i].recipe = link{target: filepath.Join(dir, a.name)}
		}
	}
	return assets, fmt.Sprintf("%s is set: %s come from %s.", prebuiltVariable, taken, dir)
}

func isPrebuilt(a asset) bool { return slices.Contains(prebuiltSet, a.name) }

func sameFolder(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// link is the recipe of a program that is there already.
type link struct {
	target string
}

func (l link) needs() []tool { return nil }

func (l link) version() (string, error) { return "as it is", nil }

func (l link) inputs(w io.Writer) error {
	_, err := fmt.Fprintln(w, "link", l.target)
	return err
}

func (l link) command(ctx context.Context, out string) (*exec.Cmd, error) {
	return exec.CommandContext(ctx, "ln", "-sf", l.target, out), nil
}
