// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	corev1 "k8s.io/api/core/v1"
)

// FindStatus returns the container status of that name, or nil.
func FindStatus(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

// Phase computes the pod's phase from the statuses of its init and main containers, after the kubelet's getPhase.
// terminal says that nothing will be restarted any more (the pod ends), initialized that the Initialized condition has
// been true already, so that a restarting sidecar doesn't put the pod back to Pending.
func Phase(spec *corev1.PodSpec, init, main []corev1.ContainerStatus, terminal, initialized bool) corev1.PodPhase {
	count := tally{spec: spec}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if IsSidecar(c) {
			count.sidecar(FindStatus(init, c.Name))
		} else {
			count.init(c, FindStatus(init, c.Name))
		}
	}
	for i := range spec.Containers {
		count.main(&spec.Containers[i], FindStatus(main, spec.Containers[i].Name))
	}
	return count.phase(terminal, initialized)
}

// tally counts containers by what they do.
type tally struct {
	spec *corev1.PodSpec

	pendingInit, failedInit, pendingSidecar                       int
	unknown, running, waiting, stopped, stoppedForGood, succeeded int
}

func (t *tally) init(c *corev1.Container, s *corev1.ContainerStatus) {
	switch ended := lastExit(s); {
	case ended == nil:
		t.pendingInit++
	case ended.ExitCode != 0 && !t.restarts(c, ended):
		t.failedInit++
	}
}

func (t *tally) sidecar(s *corev1.ContainerStatus) {
	switch {
	case s == nil:
		t.unknown++
	case s.State.Running != nil:
		t.running++
		if s.Started == nil || !*s.Started {
			t.pendingSidecar++
		}
	case lastExit(s) != nil:
		// A sidecar that has ended says nothing about the phase.
	case s.State.Waiting != nil:
		t.pendingSidecar++
		t.waiting++
	default:
		t.pendingSidecar++
		t.unknown++
	}
}

func (t *tally) main(c *corev1.Container, s *corev1.ContainerStatus) {
	switch ended := lastExit(s); {
	case s == nil:
		t.unknown++
	case s.State.Running != nil:
		t.running++
	case ended != nil:
		t.stopped++
		if !t.restarts(c, ended) {
			t.stoppedForGood++
		}
		if s.State.Terminated != nil && ended.ExitCode == 0 {
			t.succeeded++
		}
	case s.State.Waiting != nil:
		t.waiting++
	default:
		t.unknown++
	}
}

// restarts says that a container is to run again: by its own end, or because all do.
func (t *tally) restarts(c *corev1.Container, ended *corev1.ContainerStateTerminated) bool {
	return ended.Reason == ReasonRestartingAllContainers || RestartsAfter(c, t.spec, ended.ExitCode)
}

func (t *tally) phase(terminal, initialized bool) corev1.PodPhase {
	switch {
	case t.failedInit > 0:
		return corev1.PodFailed
	case t.pendingInit > 0, t.pendingSidecar > 0 && !initialized, t.waiting > 0:
		return corev1.PodPending
	case t.unknown > 0:
		return corev1.PodPending
	case t.running > 0:
		return corev1.PodRunning
	case t.stopped == 0:
		return corev1.PodPending
	case !terminal && t.stopped != t.stoppedForGood:
		return corev1.PodRunning
	case t.stopped == t.succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// lastExit is how the container ended when it doesn't run now: its present end, or the one it waits to restart from.
func lastExit(s *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case s == nil || s.State.Running != nil:
		return nil
	case s.State.Terminated != nil:
		return s.State.Terminated
	case s.State.Waiting != nil:
		return s.LastTerminationState.Terminated
	}
	return nil
}
