// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/probe"
)

// requestMost is how long a runtime may take for one call, beside a grace period; a runtime that hangs is asked again.
const requestMost = 2 * time.Minute

// job runs something long beside the reconciles, and has the pod looked at again when it is over.
func (r *Reconciler) job(key types.NamespacedName, work func(ctx context.Context)) {
	r.mu.Lock()
	base := r.base
	r.mu.Unlock()
	r.jobs.Go(func() {
		work(base)
		r.wake(key)
	})
}

// stop ends one container: preStop hook, stop signal, and after the grace period the kill.
func (r *Reconciler) stop(ctx context.Context, rec *record, pod *pcorev1.Pod, step stopStep, seen *observed) {
	id := step.container.Id
	rec.mu.Lock()
	set(&rec.mem.stopping, id, true)
	if step.resize {
		set(&rec.mem.resize.restarting, id, true)
	}
	set(&rec.mem.stopReasons, id, step.message)
	rec.mu.Unlock()
	r.eventStop(pod, step)
	work := func(ctx context.Context) {
		grace := step.grace
		if !rec.node.Simulated && step.container.running() {
			grace = r.preStop(ctx, rec, pod, step, seen)
		}
		bounded, cancel := context.WithTimeout(ctx, grace+requestMost)
		defer cancel()
		err := rec.node.Runtime.StopContainer(bounded, id, grace)
		if err != nil && status.Code(err) != codes.NotFound && ctx.Err() == nil {
			logf.FromContext(ctx).Error(err, "Stopping a container failed, trying again", "pod", klog.KObj(pod), "container", step.container.name())
			sleep(ctx, time.Second)
		}
		if err == nil && !rec.node.Simulated {
			rec.node.awaitEnd(bounded, id)
		}
		rec.mu.Lock()
		delete(rec.mem.stopping, id)
		rec.mu.Unlock()
	}
	if rec.node.Simulated {
		work(ctx)
		return
	}
	r.job(rec.key, work)
}

// preStop calls the container's hook and returns what is left of the grace period.
func (r *Reconciler) preStop(ctx context.Context, rec *record, pod *pcorev1.Pod, step stopStep, seen *observed) time.Duration {
	raw := step.container.GetAnnotations()[annotationPreStop]
	if raw == "" || step.grace <= 0 {
		return step.grace
	}
	handler := &corev1.LifecycleHandler{}
	if err := json.Unmarshal([]byte(raw), handler); err != nil {
		return step.grace
	}
	began := r.options.Now()
	bounded, cancel := context.WithTimeout(ctx, step.grace)
	defer cancel()
	c := findContainer(&pod.Spec.PodSpec, step.container.name())
	if err := callHook(bounded, handler, r.target(rec, pod, seen, c, step.container.Id), step.grace); err != nil {
		r.event(pod, corev1.EventTypeWarning, "FailedPreStopHook", "Killing", fmt.Sprintf("PreStopHook of container %s failed: %s", step.container.name(), message(err)))
	}
	return max(step.grace-r.options.Now().Sub(began), graceLeast)
}

// postStart calls the hook of a container that has just started. Until it is over the container counts as waiting; when it
// fails the container is killed.
func (r *Reconciler) postStart(rec *record, pod *pcorev1.Pod, seen *observed, c *corev1.Container, id string) {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil || rec.node.Simulated {
		return
	}
	rec.mu.Lock()
	set(&rec.mem.hooks, id, hookState{running: true})
	rec.mu.Unlock()
	r.job(rec.key, func(ctx context.Context) {
		outcome := hookState{}
		if err := callHook(ctx, c.Lifecycle.PostStart, r.target(rec, pod, seen, c, id), 0); err != nil {
			outcome.failed = message(err)
			r.event(pod, corev1.EventTypeWarning, "FailedPostStartHook", "Starting", fmt.Sprintf("PostStartHook of container %s failed: %s", c.Name, outcome.failed))
		}
		rec.mu.Lock()
		set(&rec.mem.hooks, id, outcome)
		rec.mu.Unlock()
	})
}

// callHook runs a hook; timeout 0: without bound.
func callHook(ctx context.Context, hook *corev1.LifecycleHandler, target probe.Target, timeout time.Duration) error {
	switch {
	case hook.Exec != nil:
		out, code, err := target.Exec(ctx, hook.Exec.Command, timeout)
		if err != nil {
			return fmt.Errorf("running %s: %w", strings.Join(hook.Exec.Command, " "), err)
		}
		if code != 0 {
			return fmt.Errorf("command %q exited with %d: %s", strings.Join(hook.Exec.Command, " "), code, out)
		}
	case hook.HTTPGet != nil:
		// Upstream takes any answer of an HTTP hook for success, and only a missing one for a failure.
		ok, out, err := probe.Run(ctx, &corev1.ProbeHandler{HTTPGet: hook.HTTPGet}, target, 30*time.Second)
		if err != nil {
			return err
		}
		if !ok && !strings.HasPrefix(out, "HTTP probe failed with statuscode") {
			return errors.New(out)
		}
	case hook.TCPSocket != nil:
		_, _, err := probe.Run(ctx, &corev1.ProbeHandler{TCPSocket: hook.TCPSocket}, target, 30*time.Second)
		return err
	case hook.Sleep != nil:
		sleep(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
	}
	return nil
}

// target is a container as probes and hooks reach it.
func (r *Reconciler) target(rec *record, pod *pcorev1.Pod, seen *observed, c *corev1.Container, id string) probe.Target {
	t := probe.Target{Exec: func(ctx context.Context, command []string, timeout time.Duration) (string, int32, error) {
		answer, err := rec.node.Runtime.ExecSync(ctx, id, command, timeout)
		if err != nil {
			return "", 0, err
		}
		return string(answer.Stdout) + string(answer.Stderr), answer.ExitCode, nil
	}}
	if c != nil {
		t.Ports = c.Ports
	}
	ips := seen.addresses()
	if pod.Spec.HostNetwork {
		ips = rec.node.HostIPs
	}
	if len(ips) > 0 {
		t.IP = ips[0]
	}
	return t
}

func findContainer(spec *corev1.PodSpec, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range spec.EphemeralContainers {
		if c := &spec.EphemeralContainers[i].EphemeralContainerCommon; c.Name == name {
			return (*corev1.Container)(c)
		}
	}
	return nil
}

// event records what no condition says; related events of one reason are merged into a series.
func (r *Reconciler) event(pod *pcorev1.Pod, kind, reason, action, note string) {
	if r.options.Events == nil || pod.ResourceVersion == "" {
		return // Nobody to tell it to: the pod's object is gone.
	}
	if len(note) > 1024 {
		note = note[:1021] + "..."
	}
	r.options.Events.Eventf(pod, nil, kind, reason, action, "%s", note)
}

// eventStop tells why a container is stopped, unless its pod ends, which everybody knows.
func (r *Reconciler) eventStop(pod *pcorev1.Pod, step stopStep) {
	if step.message != endMessage {
		r.event(pod, corev1.EventTypeNormal, "Killing", "Killing", step.message)
	}
}
