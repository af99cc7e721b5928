// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// What the restart rule RestartAllContainers does. Each container carries the epoch of the pod in which it was made:
//
//	epoch 0   init ✓   main ● ── exits with 42 ──> the epoch is over: what runs of it is killed
//	epoch 1   init ●                               and the next begins with the first init container
//
// In the present epoch only its own containers count, so those of an earlier one needn't be removed: their logs, ends and restart counts
// stay. It all follows from what the runtime holds, so an agent may die between any two steps (docs/adr/0047).

// epoch of the pod in which the container was made.
func (c *container) epoch() int32 {
	n, err := strconv.ParseInt(c.GetAnnotations()[annotationEpoch], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// inEpoch is the situation with its epoch, which every reader of it relies on.
func (s situation) inEpoch() situation {
	s.epoch, s.asked = 0, nil
	spec := &s.pod.Spec.PodSpec
	if !podstate.MayRestartAll(spec) {
		return s
	}
	eachContainer(spec, func(c *corev1.Container) {
		if latest := s.seen.latest(c.Name); latest != nil {
			s.epoch = max(s.epoch, latest.epoch())
		}
	})
	eachContainer(spec, func(c *corev1.Container) {
		if latest := s.latest(c.Name); latest.exited() && podstate.RestartsAllAfter(c, latest.ExitCode) && !doneBefore(s, latest) {
			s.asked = append(s.asked, latest)
		}
	})
	if len(s.asked) > 0 {
		s.epoch++
	}
	return s
}

// doneBefore says that the pod is done and wasn't ended by the restart itself: nothing is to be started again for how a sidecar ends when it
// is stopped together with its pod. What has succeeded wasn't killed.
func doneBefore(s situation, ended *container) bool {
	spec := &s.pod.Spec.PodSpec
	forGood := func(c *corev1.Container) bool {
		latest := s.latest(c.Name)
		return latest.exited() && !podstate.RestartsAfter(c, spec, latest.ExitCode) && (latest.ExitCode == 0 || latest.FinishedAt < ended.FinishedAt)
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; forGood(c) && s.latest(c.Name).ExitCode != 0 {
			return true
		}
	}
	for i := range spec.Containers {
		if !forGood(&spec.Containers[i]) {
			return false
		}
	}
	return true
}

// eachContainer visits the containers that a restart of all concerns: all but the ephemeral ones.
func eachContainer(spec *corev1.PodSpec, visit func(*corev1.Container)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i])
	}
}

// latest returns the newest container of that name that belongs to the present epoch, in any sandbox.
func (s situation) latest(name string) *container {
	if c := s.seen.latest(name); c != nil && c.epoch() == s.epoch {
		return c
	}
	return nil
}

// latestIn returns the newest container of that name in that sandbox that belongs to the present epoch.
func (s situation) latestIn(sandboxID, name string) *container {
	if c := s.seen.latestIn(sandboxID, name); c != nil && c.epoch() == s.epoch {
		return c
	}
	return nil
}

// isOver says that a container belongs to an epoch that is over.
func (s situation) isOver(c *container) bool {
	return c != nil && c.kind() != kindEphemeral && c.epoch() < s.epoch
}

// planEpoch kills what runs of an epoch that is over, without grace and hooks, as upstream does. True when the present one may go on: nothing
// of the last one runs any more, and the back-offs of those that asked for the restart are over.
func planEpoch(s situation, p *plan) bool {
	due := true
	for _, c := range s.seen.containers {
		if s.isOver(c) && c.mayRun() {
			due = false
			p.stopOnce(s, stopStep{container: c, message: "Container " + c.name() + " is killed: " + s.whyAll()})
		}
	}
	for _, c := range s.asked {
		b := s.mem.crash[c.name()]
		if until := b.until(c.finished()); until.After(s.now) {
			due = false
			p.waiting[c.name()] = startFailure{reason: "CrashLoopBackOff", message: crashMessage(s.pod, c.name(), b), retryAt: until}
			p.wakeAt(until)
		}
	}
	return due
}

// whyAll says why all containers are started again.
func (s situation) whyAll() string {
	if len(s.asked) == 0 {
		return "all containers of the pod restart"
	}
	return fmt.Sprintf("all containers of the pod restart, for container %s exited with code %d", s.asked[0].name(), s.asked[0].ExitCode)
}
