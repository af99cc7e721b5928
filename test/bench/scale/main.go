// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/test/env"
)

// settings of one run.
type settings struct {
	Rounds int `json:"rounds"`
	// Pods of the Deployment, and Nodes that it runs on.
	Pods  int `json:"pods"`
	Nodes int `json:"nodes"`
	// Sides are measured in turns.
	Sides []string `json:"sides"`
	// RestPods run on RestNodes while the manager is measured at rest; 0 leaves that out.
	RestPods  int           `json:"restPods"`
	RestNodes int           `json:"restNodes"`
	Settle    time.Duration `json:"settleNanoseconds"`
	Idle      time.Duration `json:"idleNanoseconds"`
	// pinnace is the program that is measured.
	pinnace string
	// profiles is the folder for CPU profiles; empty takes none.
	profiles string
	// keep leaves the data folders of the rounds.
	keep bool
	// root of the module, and the folder of upstream's programs.
	root, assets string
}

func main() {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			exit(role(os.Args[2:]))
		}
	}
	s := settings{}
	out := flag.String("o", "bin/bench-scale.json", "`file` for the JSON result")
	sides := flag.String("sides", strings.Join(defaultSides, ","), "what is measured, in turns: "+strings.Join(allSides(), ", "))
	flag.IntVar(&s.Rounds, "rounds", 3, "how often each figure is measured; the median counts")
	flag.IntVar(&s.Pods, "pods", 1000, "pods of the Deployment")
	flag.IntVar(&s.Nodes, "nodes", 100, "simulated nodes")
	flag.IntVar(&s.RestPods, "rest-pods", 10000, "pods at rest; 0 leaves this part out")
	flag.IntVar(&s.RestNodes, "rest-nodes", 500, "simulated nodes of the pods at rest")
	flag.DurationVar(&s.Settle, "settle", 150*time.Second, "how long the pods at rest are left alone before they are measured")
	flag.DurationVar(&s.Idle, "idle", 60*time.Second, "how long to measure at rest")
	flag.StringVar(&s.pinnace, "pinnace", "bin/pinnace", "the `program` that is measured")
	flag.StringVar(&s.profiles, "profiles", "", "`folder` for CPU profiles of Pinnace's processes and of kube-apiserver; taking them costs a little")
	flag.BoolVar(&s.keep, "keep", false, "leave the data folders, with logs")
	flag.Parse()
	s.Sides = strings.FieldsFunc(*sides, func(r rune) bool { return r == ',' })
	ctrllog.SetLogger(logr.Discard()) // the client would complain of having none
	klog.SetLogger(logr.Discard())
	exit(run(s, *out))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(s settings, out string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if s.root, err = env.Root(); err != nil {
		return err
	}
	s.assets = filepath.Join(s.root, "bin", "assets")
	for _, path := range []*string{&s.pinnace, &s.profiles} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	for _, side := range s.Sides {
		if _, ok := starts[side]; !ok {
			return fmt.Errorf("-sides: %q is unknown; choose from %s", side, strings.Join(allSides(), ", "))
		}
	}
	r := &result{Settings: s, Machine: describeMachine()}
	for i := range s.Rounds {
		// The order turns round, so that a machine that gets slower treats all alike.
		order := slices.Clone(s.Sides)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, side := range order {
			m, err := measureRound(ctx, s, side)
			if err != nil {
				return fmt.Errorf("measuring %s: %w", side, err)
			}
			progress("round %d of %d, %s: create %s, rolling update %s, load %s", i+1, s.Rounds, side, m.Create, m.Rollout, m.Load)
			r.Rounds = append(r.Rounds, m)
		}
	}
	if s.RestPods > 0 {
		if r.Rest, err = measureRest(ctx, s); err != nil {
			return fmt.Errorf("measuring pods at rest: %w", err)
		}
	}
	r.print(os.Stdout)
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, append(data, '\n'), 0o644))
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
