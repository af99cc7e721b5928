// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/controllers/agent/node"
)

// AgentDownOptions say what becomes of the pods when the agent is told to end. The zero value leaves them running.
type AgentDownOptions struct {
	// Grace, when not 0, ends all pods for good within that time, as upstream's graceful node shutdown. Critical is the part of it that
	// is for critical pods.
	Grace, Critical time.Duration
	// StopPods stops them, to be run again by the next agent.
	StopPods bool
}

// stopPodsMost bounds how long StopPods takes.
const stopPodsMost = 25 * time.Second

func (o *AgentDownOptions) check() error {
	switch {
	case o.Grace < 0 || o.Critical < 0:
		return errors.New("--shutdown-grace-period and --shutdown-grace-period-critical-pods can't be below 0")
	case o.Critical > o.Grace:
		return fmt.Errorf("--shutdown-grace-period-critical-pods %s is a part of --shutdown-grace-period %s: make it no longer", o.Critical, o.Grace)
	case o.Grace > 0 && o.StopPods:
		return errors.New("--shutdown-grace-period ends pods for good and --stop-pods doesn't: give one of them")
	}
	return nil
}

// runUntilDown runs the static pods, and the manager, until the context ends, and then until the pods are where they should be.
func runUntilDown(ctx context.Context, mgr ctrl.Manager, o AgentDownOptions, pods *agent.Reconciler, nodes *node.Reconciler) error {
	pods.LoadStatic(ctx)
	start := func(ctx context.Context) error {
		go pods.RunStatic(ctx)
		return mgr.Start(ctx)
	}
	if o == (AgentDownOptions{}) {
		return start(ctx)
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- start(inner) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if err := goDown(inner, o, pods, nodes); err != nil {
		mgr.GetLogger().Error(err, "The node did not go down in order")
	}
	cancel()
	return <-done
}

func goDown(ctx context.Context, o AgentDownOptions, pods *agent.Reconciler, nodes *node.Reconciler) error {
	told := nodes.GoDown(ctx)
	if o.StopPods {
		return errors.Join(told, pods.GoDown(ctx, stopPodsMost))
	}
	return errors.Join(told, pods.ShutDown(ctx, agent.ShutdownOptions{Grace: o.Grace, Critical: o.Critical}))
}
