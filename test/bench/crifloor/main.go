// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command crifloor measures what the container runtime alone needs for pods, with nothing of Pinnace around it: it runs
// sandboxes, creates containers and starts them through CRI, several at a time. It is the floor that the time to ready
// is compared with.
//
//	go run ./test/bench/crifloor -n 20 -p 2,4,8 -assets bin/assets
//
// It starts a containerd of its own, configured as `pinnace up` configures it, with the image of the program given by
// -program; or it uses a runtime that runs already (-endpoint and -image).
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/test/bench/crifloor/floor"
	"github.com/pinnace-dev/pinnace/test/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crifloor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	pods := flag.Int("n", 20, "pods to start")
	parallel := flag.String("p", "2,4,8", "how many at a time; each is tried, and the best is the floor")
	rounds := flag.Int("rounds", 3, "how often each is tried; the median counts")
	assets := flag.String("assets", "bin/assets", "folder with containerd, its shim, runc, pause and cni/")
	endpoint := flag.String("endpoint", "", "socket of a runtime that runs already")
	image := flag.String("image", "pinnace.dev/crifloor:v1", "image to run")
	program := flag.String("program", "", "static program to make the image of (default: the pause program)")
	asJSON := flag.Bool("json", false, "print one line of JSON")
	flag.Parse()

	var levels []int
	for word := range strings.SplitSeq(*parallel, ",") {
		level, err := strconv.Atoi(word)
		if err != nil || level < 1 {
			return fmt.Errorf("-p %q is no list of numbers such as 2,4,8", *parallel)
		}
		levels = append(levels, level)
	}
	recorder := &floor.Recorder{}
	var client *cri.Client
	var memory func() (int64, error)
	if *endpoint != "" {
		if client, err = cri.Dial(*endpoint, cri.WithObserver(recorder.Observe)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, client.Close()) }()
	} else {
		host, err := node.Start(ctx, node.Options{Assets: *assets, Observe: recorder.Observe})
		if err != nil {
			return err
		}
		defer func() {
			stopErr := errors.Join(host.Stop(context.WithoutCancel(ctx)), node.RemoveCgroups(floor.Cgroup))
			if stopErr != nil {
				fmt.Fprintln(os.Stderr, "crifloor: cleaning up:", stopErr)
			}
		}()
		path := *program
		if path == "" {
			path = filepath.Join(*assets, "pause")
		}
		if err := host.LoadProgram(ctx, path, *image); err != nil {
			return err
		}
		client, memory = host.CRI, host.RSS
	}
	logs, err := os.MkdirTemp("", "crifloor-logs-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(logs)) }()
	profile, err := runtime.WriteSandboxProfile(logs)
	if err != nil {
		return err
	}
	best, all, err := floor.Best(ctx, client, recorder, floor.Options{Image: *image, Pods: *pods, LogDir: logs, SandboxProfile: profile}, levels, *rounds)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(best)
	}
	for _, r := range all {
		fmt.Printf("%2d at a time: %d pods in %s; p50:%s\n", r.Parallel, r.Pods, r.Total.Round(10*time.Millisecond), r.Steps())
	}
	if memory != nil {
		rss, err := memory()
		if err != nil {
			return err
		}
		fmt.Printf("containerd afterwards, without pods: %d MB RSS\n", rss>>20)
	}
	fmt.Printf("floor: %d pods in %s, %d at a time\n", best.Pods, best.Total.Round(10*time.Millisecond), best.Parallel)
	return nil
}
