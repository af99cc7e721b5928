// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// restartedTooOften says whether spec.maxRestarts is used up: a container has ended and would be started again more often than that. It
// looks at what the runtime holds, whichever sandbox it was in, so that an agent that restarts while it ends the pod comes to the same.
func restartedTooOften(s situation) *podFailure {
	if s.pod.Spec.MaxRestarts == nil {
		return nil
	}
	spec := &s.pod.Spec.PodSpec
	if len(s.asked) > 0 {
		return allTooOften(s, spec)
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		latest := s.seen.latest(c.Name)
		if !podstate.IsSidecar(c) && latest.exited() && latest.ExitCode == 0 {
			continue // it is done
		}
		if fail := endedTooOften(s, c, latest); fail != nil {
			return fail
		}
	}
	for i := range spec.Containers {
		if fail := endedTooOften(s, &spec.Containers[i], s.seen.latest(spec.Containers[i].Name)); fail != nil {
			return fail
		}
	}
	return nil
}

// allTooOften says so when all containers would be started again: then each counts that was started before, however it ended.
func allTooOften(s situation, spec *corev1.PodSpec) (fail *podFailure) {
	eachContainer(spec, func(c *corev1.Container) {
		if fail == nil && s.seen.latest(c.Name) != nil {
			fail = exhausted(s, c)
		}
	})
	return fail
}

func endedTooOften(s situation, c *corev1.Container, latest *container) *podFailure {
	if !latest.exited() || !podstate.RestartsAfter(c, &s.pod.Spec.PodSpec, latest.ExitCode) {
		return nil
	}
	return exhausted(s, c)
}

// exhausted is the pod's failure if starting the container now were one restart too many. A container that is never restarted has no
// such limit.
func exhausted(s situation, c *corev1.Container) *podFailure {
	most := s.pod.Spec.MaxRestarts
	spec := &s.pod.Spec.PodSpec
	if most == nil || nextRestartCount(s, c.Name) <= *most || !podstate.RestartsAfter(c, spec, 1) && !podstate.MayRestartAll(spec) {
		return nil
	}
	message := fmt.Sprintf("Container %s was restarted %d times, and spec.maxRestarts allows no more", c.Name, *most)
	switch *most {
	case 0:
		message = fmt.Sprintf("Container %s would have to be restarted, and spec.maxRestarts allows no restart", c.Name)
	case 1:
		message = fmt.Sprintf("Container %s was restarted once, and spec.maxRestarts allows no more", c.Name)
	}
	if latest := s.seen.latest(c.Name); latest.exited() {
		message += fmt.Sprintf("; it ended with exit code %d", latest.ExitCode)
		if latest.Reason != "" {
			message += " (" + latest.Reason + ")"
		}
	}
	return &podFailure{reason: podstate.ReasonTooManyRestarts, message: message + "."}
}
