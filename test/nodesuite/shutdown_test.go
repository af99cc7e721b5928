// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/setup"
)

// Graceful node shutdown: https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/

// tellingItsEnd is a pod that notes in a file, by its name, when its hook and when its program ends; the hook waits for a file.
func tellingItsEnd(folder, name, spec string) string {
	return strings.NewReplacer("$OUT", folder, "$WHO", name, "$SPEC", spec).Replace(`{pod: {$SPEC terminationGracePeriodSeconds: 30, volumes: [{name: out, hostPath: {path: $OUT}}],
  containers: [{args: [onterm, write, /out/log, $WHO-ended], volumeMounts: [{name: out, mountPath: /out}],
    lifecycle: {preStop: {exec: {command: [/testprog, do, await /out/go, write /out/log $WHO-hook]}}}}]}}`)
}

const (
	// shutDown is the status of a pod that ended with its node.
	shutDown = "status.phase == 'Failed' && status.reason == 'Terminated' && is.DisruptionTarget == 'True' && why.DisruptionTarget == 'TerminationByKubelet'"
	critical = "priority: 2000000000, priorityClassName: system-cluster-critical,"
)

// disturbShutdown asks an agent to end that has to end its pods: the critical one last, each with its hook, and none comes meanwhile.
func disturbShutdown(t *testing.T, w *world) error {
	out := filepath.Join(w.dir, "shutdown")
	if err := errors.Join(os.Mkdir(out, 0o755), os.Chmod(out, 0o777)); err != nil {
		return err
	}
	g := w.group(t)
	err := w.withManifests(t, func(o *setup.AgentOptions) { o.Down.Grace, o.Down.Critical = time.Minute, 30*time.Second }, func(ctx context.Context, folder string) error {
		static, err := w.makeStatic(t, folder, "static", "one")
		if err != nil {
			return err
		}
		pods, err := g.startReady(tellingItsEnd(out, "critical", critical), tellingItsEnd(out, "plain", ""))
		if err == nil {
			err = errors.Join(static.runs(ctx, "one"), w.terminate(), w.nodeIs(ctx, "Ready", "False"))
		}
		if err != nil {
			return err
		}
		if err := w.refusesMeanwhile(ctx, g, pods[0]); err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(filepath.Join(out, "go"), nil, 0o600), w.awaitAgentEnd(ctx, patience)); err != nil {
			return err
		}
		// All is told before the agent has ended: nobody could afterwards.
		for _, r := range append(pods, static.caseRun) {
			if err := r.holds(ctx, shutDown); err != nil {
				return err
			}
		}
		if err := endedInOrder(filepath.Join(out, "log")); err != nil {
			return err
		}
		return w.normalAgain(ctx, t, pods, static)
	})
	return errors.Join(err, g.end(), os.RemoveAll(out))
}

// endedInOrder reads what the pods have noted.
func endedInOrder(file string) error {
	log, err := read(file)
	if err == nil && log != "plain-hook\nplain-ended\ncritical-hook\ncritical-ended" {
		err = fmt.Errorf("the pods ended in this order: %q", log)
	}
	return err
}

// refusesMeanwhile makes a pod on a node that goes down; the critical one still runs.
func (w *world) refusesMeanwhile(ctx context.Context, g *podGroup, critical *caseRun) error {
	late, err := g.start(sleeper)
	if err != nil {
		return err
	}
	if err := late.until(ctx, "status.phase == 'Failed' && status.reason == 'NodeShutdown'", patience); err != nil {
		return err
	}
	return critical.holds(ctx, "state.main == 'running'")
}

// normalAgain starts the agent once more: the node takes pods, its static pod runs, and those that have failed stay so.
func (w *world) normalAgain(ctx context.Context, t *testing.T, failed []*caseRun, static *staticPod) error {
	if err := errors.Join(w.runAgent(ctx), w.nodeIs(ctx, "Ready", "True"), w.lookedAt(t), static.runs(ctx, "one")); err != nil {
		return err
	}
	for _, r := range failed {
		if err := r.holds(ctx, shutDown); err != nil {
			return err
		}
	}
	uid := static.uid()
	return errors.Join(os.Remove(static.file), static.until(ctx, "gone", patience), w.nothingLeftOf(ctx, uid))
}

// nodeIs waits for a condition of the node.
func (w *world) nodeIs(ctx context.Context, kind, status string) error {
	return poll(ctx, patience, func(ctx context.Context) error {
		var n pcorev1.Node
		if err := w.client.Get(ctx, types.NamespacedName{Name: nodeName}, &n); err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if string(c.Type) == kind && string(c.Status) == status {
				return nil
			}
		}
		return fmt.Errorf("the node's %s is not %s: %v", kind, status, n.Status.Conditions)
	})
}
