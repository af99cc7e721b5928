// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	out := flag.String("out", "../../bin/assets", "`folder` into which the programs go")
	list := flag.Bool("list", false, "only show what there is, at which version, and whether it is built")
	flag.Usage = usage
	flag.Parse()

	// Both ways of being stopped leave no half-made program behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *out, *list, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "assets: %v\n", err)
		os.Exit(1)
	}
}

func usage() {
	w := flag.CommandLine.Output()
	fmt.Fprintf(w, "go run . [flags] [target…]   builds upstream's programs from source\n\nTargets:\n")
	fmt.Fprintf(w, "  %-14s %s\n", everything, "controlplane and node: all that `pinnace up` needs (the default)")
	for _, g := range groups {
		fmt.Fprintf(w, "  %-14s %s\n", g.name, g.purpose)
	}
	fmt.Fprintf(w, "  %-14s %s\n\nFlags:\n", "NAME", "one program; -list shows the names")
	flag.PrintDefaults()
}

// run builds what is asked for, or lists it.
func run(ctx context.Context, w io.Writer, out string, list bool, targets []string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("finding the folder of assets: %w", err)
	}
	if _, err := os.Stat("etcd/go.mod"); err != nil {
		return errors.New("the pinned modules aren't here: run it in hack/assets, as `go -C hack/assets run .`")
	}
	if list && len(targets) == 0 {
		targets = append(targets, everything, peers.name)
	}
	chosen, err := choose(targets)
	if err != nil {
		return err
	}
	assets, note := usePrebuilt(chosen.assets, os.Getenv(prebuiltVariable), out)
	if note != "" {
		fmt.Fprintln(w, note)
	}
	store := store{dir: out}
	if list {
		return show(w, store, assets)
	}

	release, err := store.lock(w)
	if err != nil {
		return err
	}
	defer release()
	stale, err := store.stale(assets)
	if err != nil {
		return err
	}
	if err := prepare(ctx, w, stale, chosen); err != nil {
		return err
	}
	return store.buildAll(ctx, w, stale, len(assets))
}

// choose turns targets into one group, in the order of the catalogue and each asset once.
func choose(targets []string) (group, error) {
	if len(targets) == 0 {
		targets = []string{everything}
	}
	known := []string{everything}
	wanted := func(g group, name string) bool {
		return slices.Contains(targets, g.name) || slices.Contains(targets, name) ||
			slices.Contains(targets, everything) && g.name != peers.name
	}
	var chosen group
	for _, g := range groups {
		known = append(known, g.name)
		for _, a := range g.assets {
			known = append(known, a.name)
			if !wanted(g, a.name) {
				continue
			}
			chosen.assets = append(chosen.assets, a)
			chosen.tools = append(chosen.tools, g.tools...)
			chosen.linuxOnly = chosen.linuxOnly || g.linuxOnly
		}
	}
	for _, target := range targets {
		if !slices.Contains(known, target) {
			return group{}, fmt.Errorf("there is no target %q; choose among %s", target, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// prepare sees to it that the system has what the stale assets need to be built,
// and what all chosen ones need to run, before the first long build begins.
func prepare(ctx context.Context, w io.Writer, stale []asset, chosen group) error {
	if chosen.linuxOnly && runtime.GOOS != "linux" {
		return fmt.Errorf("the programs of a node build on Linux only; on %s, build the target %q", runtime.GOOS, controlPlane.name)
	}
	var building []tool
	for _, a := range stale {
		building = append(building, a.recipe.needs()...)
	}
	absent := missing(append(slices.Clone(building), chosen.tools...))
	if len(absent) == 0 {
		return nil
	}
	absent, reason := install(ctx, absent, func(step string) { fmt.Fprintln(w, step) })
	if len(absent) == 0 {
		return nil
	}
	lacks := missing(building)
	if len(lacks) > 0 {
		return fmt.Errorf("the build needs %s: install with `%s` and try again, or build only what needs none of it with the target %q (%w)",
			namesOf(lacks), howToInstall(absent), controlPlane.name, reason)
	}
	// What is only needed to run containers mustn't keep anyone from simulated nodes.
	fmt.Fprintf(w, "warning: a node that runs real containers needs %s: install with `%s` (%v)\n",
		namesOf(absent), howToInstall(absent), reason)
	return nil
}

// show prints the assets with their versions and what would be done about them.
func show(w io.Writer, store store, assets []asset) error {
	for _, a := range assets {
		version, err := a.recipe.version()
		if err != nil {
			return err
		}
		key, err := keyOf(a)
		if err != nil {
			return err
		}
		fresh, err := store.fresh(a.name, key)
		if err != nil {
			return err
		}
		state := "to be built"
		if fresh {
			state = "up to date"
		}
		fmt.Fprintf(w, "%-24s %-9s %s\n", a.name, version, state)
	}
	return nil
}
