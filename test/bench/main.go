// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/test/bench/crifloor/floor"
	"github.com/pinnace-dev/pinnace/test/bench/usage"
	"github.com/pinnace-dev/pinnace/test/machine"
	"github.com/pinnace-dev/pinnace/test/node"
)

// sampleImage is small and serves HTTP: what `make images` builds.
const sampleImage = "pinnace.dev/hello:v1"

// settings of one run.
type settings struct {
	Rounds   int           `json:"rounds"`
	Pods     int           `json:"pods"`
	Settle   time.Duration `json:"settleNanoseconds"`
	Idle     time.Duration `json:"idleNanoseconds"`
	Parallel []int         `json:"floorParallel"`
}

func main() {
	out := flag.String("o", "bin/bench.json", "`file` for the JSON result")
	rounds := flag.Int("rounds", 8, "how often each figure is measured; the median counts")
	pods := flag.Int("pods", 20, "pods of the Deployment")
	settle := flag.Duration("settle", 60*time.Second, "how long to wait before measuring at rest")
	idle := flag.Duration("idle", 30*time.Second, "how long to measure at rest")
	verbose := flag.Bool("v", false, "show what `pinnace up` prints")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard()) // the client would complain of having none
	log := io.Discard
	if *verbose {
		log = os.Stderr
	}
	s := settings{Rounds: *rounds, Pods: *pods, Settle: *settle, Idle: *idle, Parallel: []int{2, 4, 8}}
	if err := run(s, *out, log); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings, out string, log io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		return errors.New("it runs containers, which needs root")
	}
	dir, err := os.MkdirTemp("", "pinnace-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := machine.New(dir, log)
	if err != nil {
		return err
	}
	r := &result{Machine: describeMachine(), Versions: versions(m), Settings: s, Yardstick: yardstick}
	if err := measureStart(ctx, m, s, r); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop(context.WithoutCancel(ctx))) }()
	if _, err := m.Pinnace(ctx, "", "image", "load", "--data-dir", m.DataDir, m.Path("bin/images/hello.tar")); err != nil {
		return err
	}
	progress("at rest: waiting %s, then measuring for %s", s.Settle, s.Idle)
	if err := pause(ctx, s.Settle); err != nil {
		return err
	}
	processes := m.Processes()
	processes["up"] = m.PID()
	if r.AtRest, err = usage.Watch(processes, s.Idle); err != nil {
		return err
	}
	if err := measureRollouts(ctx, m, s, r); err != nil {
		return err
	}
	r.print(os.Stdout)
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, append(data, '\n'), 0o644)
}

// measureStart starts with an empty data folder once, then on the warm folder several times. The last one stays up.
func measureStart(ctx context.Context, m *machine.Machine, s settings, r *result) error {
	for i := range s.Rounds + 1 {
		startCtx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		err := m.Start(startCtx)
		cancel()
		if err != nil {
			return err
		}
		progress("start %d of %d: node Ready after %s", i+1, s.Rounds+1, m.UpAfter().Round(time.Millisecond))
		if i == 0 {
			r.ColdStart = m.UpAfter()
		} else {
			r.WarmStarts = append(r.WarmStarts, m.UpAfter())
		}
		if i < s.Rounds {
			if err := m.Stop(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureRollouts runs the floor and the Deployment in turns on the same containerd, so that a machine whose speed
// drifts treats both alike. Each round begins with another, because what runs later may pay for what was removed before it: an ext4 without a
// journal goes through the inodes that were freed in the last minutes whenever it makes a file.
func measureRollouts(ctx context.Context, m *machine.Machine, s settings, r *result) (err error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(m.DataDir, "kubeconfig"))
	if err != nil {
		return err
	}
	deployments, err := newRollouts(config)
	if err != nil {
		return err
	}
	if err := deployments.namespace(ctx); err != nil {
		return err
	}
	recorder := &floor.Recorder{}
	host := containerd.ForNode(filepath.Join(m.DataDir, "nodes", "node-1"), m.Path("bin/assets"))
	service, err := cri.Dial(host.Endpoint(), cri.WithObserver(recorder.Observe))
	if err != nil {
		return err
	}
	defer func() { _ = service.Close() }()
	logs, err := os.MkdirTemp("", "pinnace-bench-logs-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(logs), node.RemoveCgroups(floor.Cgroup)) }()
	profile, err := runtime.WriteSandboxProfile(logs)
	if err != nil {
		return err
	}
	// The first one pulls the image and warms the page cache.
	if _, err := deployments.run(ctx, sampleImage, int32(s.Pods)); err != nil {
		return err
	}
	o := floor.Options{Image: sampleImage, Pods: s.Pods, LogDir: logs, SandboxProfile: profile, Rest: usage.Quiet}
	r.Floors = make([][]time.Duration, len(s.Parallel))
	turns := []func() error{func() error {
		took, err := deployments.quietly(ctx, sampleImage, int32(s.Pods))
		r.Rollouts = append(r.Rollouts, took)
		return err
	}}
	for j, level := range s.Parallel {
		turns = append(turns, func() error {
			one, _, err := floor.Best(ctx, service, recorder, o, []int{level}, 1)
			if err != nil {
				return fmt.Errorf("measuring the floor: %w", err)
			}
			r.Floors[j] = append(r.Floors[j], one.Total)
			return nil
		})
	}
	for i := range s.Rounds {
		for j := range turns {
			if err := turns[(i+j)%len(turns)](); err != nil {
				return err
			}
		}
		one, err := deployments.quietly(ctx, sampleImage, 1)
		if err != nil {
			return err
		}
		r.OnePod = append(r.OnePod, one)
		best, parallel := r.floor()
		progress("round %d of %d: floor so far %s at %d in parallel, %d of %d Ready after %s, one pod after %s", i+1, s.Rounds,
			best.Round(time.Millisecond), parallel, s.Pods, s.Pods, r.Rollouts[i].Round(time.Millisecond), one.Round(time.Millisecond))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// median of a list that isn't empty.
func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
