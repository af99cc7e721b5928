// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// round is one measurement of one side.
type round struct {
	Side string `json:"side"`
	// Load is the machine's before the round began.
	Load    string `json:"load"`
	Create  cost   `json:"create"`
	Rollout cost   `json:"rollout"`
}

// quiet is how long a side is left alone before it is measured: caches fill, policies arrive.
const quiet = 10 * time.Second

func measureRound(ctx context.Context, s settings, name string) (r round, err error) {
	r = round{Side: name, Load: load()}
	d, err := startSide(ctx, s, name, s.Nodes)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	// The first Deployment warms what is compiled or connected once, on each side.
	warm, err := d.deployment("warm", 20)
	if err != nil {
		return r, err
	}
	if _, err := warm.create(); err != nil {
		return r, err
	}
	if err := pause(ctx, quiet); err != nil {
		return r, err
	}
	y, err := d.deployment("web", s.Pods)
	if err != nil {
		return r, err
	}
	profiled := d.profileAPIServer("create")
	if r.Create, err = d.measure(s.Pods, y.create); err != nil {
		return r, err
	}
	if err := errors.Join(profiled(), pause(ctx, quiet)); err != nil {
		return r, err
	}
	profiled = d.profileAPIServer("rollout")
	r.Rollout, err = d.measure(s.Pods, func() (time.Duration, error) {
		took, err := y.update()
		if err != nil {
			return 0, err
		}
		return took, d.awaitPods(s.Pods + 20)
	})
	return r, errors.Join(err, profiled())
}

// profileAPIServer takes a CPU profile of kube-apiserver beside what follows, if profiles are wanted.
func (d *side) profileAPIServer(what string) (wait func() error) {
	if d.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		data, err := get(d.ctx, d.admin, "/debug/pprof/profile?seconds=6")
		if err == nil {
			err = errors.Join(os.MkdirAll(d.profiles, 0o755), os.WriteFile(filepath.Join(d.profiles, d.name+"-apiserver-"+what+".pprof"), data, 0o644))
		}
		done <- err
	}()
	return func() error { return <-done }
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
