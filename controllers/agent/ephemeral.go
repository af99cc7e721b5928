// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// planEphemeral starts each ephemeral container once. It is never started again, whatever became of it: neither when it has ended nor
// when the runtime has forgotten it with its sandbox.
func planEphemeral(s situation, p *plan) {
	for i := range s.pod.Spec.EphemeralContainers {
		e := &s.pod.Spec.EphemeralContainers[i]
		c := (*corev1.Container)(&e.EphemeralContainerCommon)
		if latest := s.seen.latest(c.Name); latest != nil {
			if failure, ok := s.mem.failed[c.Name]; ok && !latest.mayRun() && latest.StartedAt == 0 {
				p.waiting[c.Name] = failure // It was made and couldn't be started: why is still to be told.
			}
			continue
		}
		if old := podstate.FindStatus(s.pod.Status.EphemeralContainerStatuses, c.Name); old != nil && old.ContainerID != "" || p.blocked(s, c.Name) {
			continue
		}
		p.startNow(s, c, kindEphemeral, nil)
		p.start[len(p.start)-1].target = e.TargetContainerName
	}
}

// targetID is the container whose processes an ephemeral one is to see; empty when it names none.
func targetID(seen *observed, sandboxID, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	target := seen.latestIn(sandboxID, name)
	if !target.running() {
		return "", fmt.Errorf("unable to find target container %q: targetContainerName must name a container of the pod that runs", name)
	}
	return target.Id, nil
}

// joinTarget puts a container into the process namespace of another one.
func joinTarget(config *runtimeapi.ContainerConfig, id string) {
	if id == "" {
		return
	}
	namespaces := config.Linux.SecurityContext.NamespaceOptions
	namespaces.Pid, namespaces.TargetId = runtimeapi.NamespaceMode_TARGET, id
}

func ephemeral(spec *corev1.PodSpec) []corev1.Container {
	var out []corev1.Container
	for i := range spec.EphemeralContainers {
		out = append(out, corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return out
}
