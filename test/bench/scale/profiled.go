// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// roles are what this program also is, as a child of itself.
var roles = map[string]func([]string) error{"kubelets": runKubelets, "profiled": runProfiled}

// profileEnv names the file for a CPU profile of a profiled role.
const profileEnv = "PINNACE_BENCH_PROFILE"

// runProfiled is `pinnace manager` or `pinnace agent` with profiles of CPU and memory, which the shipped program doesn't take.
func runProfiled(args []string) (err error) {
	if len(args) == 0 {
		return errors.New("profiled needs manager or agent")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	path := os.Getenv(profileEnv)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer func() {
		pprof.StopCPUProfile()
		err = errors.Join(err, file.Close(), writeHeap(path+".heap"))
	}()
	manager, agent := setup.NewManagerOptions(), setup.NewAgentOptions()
	flags := pflag.NewFlagSet(args[0], pflag.ContinueOnError)
	flags.BoolVar(&manager.LeaderElect, "leader-elect", false, "")
	kubeconfig := flags.String("kubeconfig", "", "")
	cidr := flags.String("cluster-cidr", "", "")
	flags.StringVar(&agent.NodeName, "node-name", "", "")
	flags.IntVar(&agent.Simulate, "simulate", 0, "")
	flags.StringVar(&agent.DataDir, "data-dir", "", "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	manager.Kubeconfig, agent.Kubeconfig = *kubeconfig, *kubeconfig
	manager.ClusterCIDR, agent.ClusterCIDR = *cidr, *cidr
	switch args[0] {
	case "manager":
		return setup.RunManager(ctx, manager)
	case "agent":
		return setup.RunAgent(ctx, agent)
	}
	return fmt.Errorf("profiled knows no %q", args[0])
}

func writeHeap(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}
