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
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/test/machine"
)

// settings of one run.
type settings struct {
	Rounds int           `json:"rounds"`
	Single int           `json:"single"`
	Batch  int           `json:"batch"`
	Few    int           `json:"few"`
	Many   int           `json:"many"`
	Settle time.Duration `json:"settleNanoseconds"`
	Idle   time.Duration `json:"idleNanoseconds"`
	// KubeletDefaults leaves the kubelet's own limit of 50 requests a second to the API server.
	KubeletDefaults bool `json:"kubeletDefaults"`
}

func main() {
	var s settings
	out := flag.String("o", "bin/bench-kubelet.json", "`file` for the JSON result")
	program := flag.String("pinnace", "", "the `program` to measure (default bin/pinnace)")
	flag.IntVar(&s.Rounds, "rounds", 3, "how often each side starts pods; the median counts")
	flag.IntVar(&s.Single, "single", 20, "pods that are started one at a time, in each round")
	flag.IntVar(&s.Batch, "batch", 50, "pods that are started at once")
	flag.IntVar(&s.Few, "few", 20, "pods of the first measurement at rest; 0 leaves out what is measured at rest")
	flag.IntVar(&s.Many, "many", 100, "pods of the second measurement at rest")
	flag.DurationVar(&s.Settle, "settle", 30*time.Second, "how long to wait before measuring at rest")
	flag.DurationVar(&s.Idle, "idle", 30*time.Second, "how long to measure at rest")
	flag.BoolVar(&s.KubeletDefaults, "kubelet-defaults", false, "leave the kubelet's own limits of requests to the API server")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard()) // the client would complain of having none
	if err := run(s, *program, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings, program, out string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		return errors.New("it runs containers, which needs root")
	}
	root, err := machine.Root()
	if err != nil {
		return err
	}
	if program == "" {
		program = filepath.Join(root, "bin/pinnace")
	}
	r := &result{Settings: s, LoadBefore: load()}
	rig, err := newRig(ctx, s, root, program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.stop()) }()
	if err := rig.calibrate(); err != nil {
		return err
	}
	for i := range s.Rounds {
		if err := rig.round(i, r); err != nil {
			return err
		}
		progress("round %d of %d: %s", i+1, s.Rounds, r.lastRound())
	}
	if s.Few > 0 {
		for _, side := range sides {
			if err := rig.rest(side, r); err != nil {
				return err
			}
		}
	}
	r.LoadAfter = load()
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

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
