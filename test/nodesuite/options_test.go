// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinnace-dev/pinnace/controllers/agent/node"
	"github.com/pinnace-dev/pinnace/internal/setup"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// setAgent says with which options the agent is started from now on.
func (w *world) setAgent(o setup.AgentOptions) error {
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("writing the agent's options: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	w.agent = supervise.Process{
		Name: "agent", Path: program, Env: []string{agentVariable + "=" + string(text), "GOGC=80"},
		LogFile: filepath.Join(w.node.Dir, "agent.log"), OrphanSignal: syscall.SIGKILL,
		// What it does at its end takes its time.
		StopTimeout: o.Down.Grace + 10*time.Second,
	}
	return nil
}

// withOptions has an agent with other options run while something is done, and puts the usual one back in any case.
func (w *world) withOptions(ctx context.Context, change func(o *setup.AgentOptions), do func(ctx context.Context) error) error {
	changed := w.options
	change(&changed)
	err := w.restartWith(ctx, changed)
	if err == nil {
		err = do(ctx)
	}
	return errors.Join(err, w.restartWith(context.WithoutCancel(ctx), w.options))
}

// restartWith starts an agent with these options in place of the one that runs, if one does, and waits until it has told that it is there.
func (w *world) restartWith(ctx context.Context, o setup.AgentOptions) error {
	if err := errors.Join(w.stopAgent(ctx), w.setAgent(o)); err != nil {
		return err
	}
	began := time.Now()
	if err := w.runAgent(ctx); err != nil {
		return err
	}
	return poll(ctx, time.Minute, func(ctx context.Context) error {
		select {
		case <-w.running.Done():
			return fatal{fmt.Errorf("the agent has ended: %w; its log ends with %q", w.running.Err(), supervise.Tail(w.agent.LogFile, 3))}
		default:
		}
		lease := &coordinationv1.Lease{}
		if err := w.client.Get(ctx, types.NamespacedName{Namespace: node.LeaseNamespace, Name: nodeName}, lease); err != nil {
			return fmt.Errorf("reading the node's lease: %w", err)
		}
		if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Time.Before(began) {
			return errors.New("the agent hasn't renewed its node's lease since it was started")
		}
		return nil
	})
}

// terminate asks the agent to end and doesn't wait for it; awaitAgentEnd does.
func (w *world) terminate() error { return syscall.Kill(w.running.PID(), syscall.SIGTERM) }

func (w *world) awaitAgentEnd(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case <-w.running.Done():
		return w.stopAgent(ctx)
	case <-ctx.Done():
		return fmt.Errorf("the agent does not end: %w", ctx.Err())
	}
}

// podGroup are pods of one disturbance, which are ended together.
type podGroup struct {
	w    *world
	t    *testing.T
	ends []func() error
}

func (w *world) group(t *testing.T) *podGroup { return &podGroup{w: w, t: t} }

// start makes a pod of one case.
func (g *podGroup) start(text string) (*caseRun, error) {
	g.t.Helper()
	r, end, err := g.w.start(g.t, text)
	if err == nil {
		g.ends = append(g.ends, end)
	}
	return r, err
}

// startReady makes pods, of which all are Ready when it returns.
func (g *podGroup) startReady(texts ...string) ([]*caseRun, error) {
	g.t.Helper()
	var out []*caseRun
	for _, text := range texts {
		r, err := g.start(text)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	for _, r := range out {
		if err := r.until(g.t.Context(), ready, patience); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// end deletes all of them, of which nothing may be left.
func (g *podGroup) end() error {
	var failures []error
	for _, end := range g.ends {
		failures = append(failures, end())
	}
	return errors.Join(failures...)
}

// allUntil waits for each of them.
func allUntil(ctx context.Context, text string, runs ...*caseRun) error {
	for _, r := range runs {
		if err := r.until(ctx, text, patience); err != nil {
			return err
		}
	}
	return nil
}
