// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the pod's conditions, equal to the kubelet's.
const (
	// ReasonPodCompleted says that all containers have succeeded.
	ReasonPodCompleted = "PodCompleted"
	// ReasonPodFailed says that the pod has failed.
	ReasonPodFailed = "PodFailed"
	// ReasonContainersNotReady says that one or more containers are not ready.
	ReasonContainersNotReady = "ContainersNotReady"
	// ReasonContainersNotInitialized says that one or more init containers have not succeeded.
	ReasonContainersNotInitialized = "ContainersNotInitialized"
	// ReasonReadinessGatesNotReady says that one or more readiness gates are not ready.
	ReasonReadinessGatesNotReady = "ReadinessGatesNotReady"
	// ReasonSandboxNotReady says that the pod has no sandbox with a network yet.
	ReasonSandboxNotReady = "PodSandboxNotReady"
	// ReasonRestartAllStarted says that a container has ended and all are started again for it.
	ReasonRestartAllStarted = "RestartAllContainersStarted"
)

// ReasonRestartingAllContainers is what a container waits for while all of its pod are started again, and, as a reason of its end, that it
// ended, or counts as ended, for that; the kubelet's word.
const ReasonRestartingAllContainers = "RestartingAllContainers"

// Facts is what the conditions follow from.
type Facts struct {
	Phase      corev1.PodPhase
	Init, Main []corev1.ContainerStatus
	// SandboxReady says that there is one ready sandbox with its addresses; SandboxMessage why not.
	SandboxReady   bool
	SandboxMessage string
	// RestartingAll says that a container's end asks for a restart of all, which hasn't begun to start anything yet.
	RestartingAll bool
	// Others are the conditions that the pod has so far: those of other writers, such as readiness gates, and the last ones of ours.
	Others []corev1.PodCondition
}

// Conditions computes the conditions of a bound pod in upstream's order, without times and generation.
func Conditions(spec *corev1.PodSpec, f Facts) []corev1.PodCondition {
	containers := containersReady(spec, f)
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}
	if !f.SandboxReady {
		sandbox.Status, sandbox.Reason, sandbox.Message = corev1.ConditionFalse, ReasonSandboxNotReady, f.SandboxMessage
	}
	out := []corev1.PodCondition{
		sandbox,
		initialized(spec, f),
		ready(spec, f, containers),
		containers,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	if MayRestartAll(spec) {
		out = append(out, restartingAll(f))
	}
	return out
}

// restartingAll is upstream's GenerateAllContainersRestartingCondition: a pod that could never restart all of its containers hasn't got it.
func restartingAll(f Facts) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
	switch {
	case f.Phase == corev1.PodFailed:
		c.Reason = ReasonPodFailed
	case f.Phase == corev1.PodSucceeded:
		c.Reason = ReasonPodCompleted
	case f.RestartingAll:
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, ReasonRestartAllStarted, "container exited with restart policy rule"
	}
	return c
}

// Stamp gives the conditions their generation and transition times: the time of the same condition in before when its
// status is unchanged, else now. Conditions of before that are not in wanted belong to other writers and are kept.
func Stamp(wanted, before []corev1.PodCondition, generation int64, now time.Time) []corev1.PodCondition {
	out := make([]corev1.PodCondition, 0, len(wanted)+1)
	for _, c := range wanted {
		c.ObservedGeneration = generation
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		if old := FindCondition(before, c.Type); old != nil && old.Status == c.Status && !old.LastTransitionTime.IsZero() {
			c.LastTransitionTime = old.LastTransitionTime
		}
		out = append(out, c)
	}
	for _, old := range before {
		if FindCondition(wanted, old.Type) == nil {
			out = append(out, old)
		}
	}
	return out
}

// FindCondition returns the condition of that type, or nil.
func FindCondition(conditions []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == t {
			return &conditions[i]
		}
	}
	return nil
}

// IsTrue tells whether the condition is there and true.
func IsTrue(conditions []corev1.PodCondition, t corev1.PodConditionType) bool {
	c := FindCondition(conditions, t)
	return c != nil && c.Status == corev1.ConditionTrue
}

func containersReady(spec *corev1.PodSpec, f Facts) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	switch f.Phase {
	case corev1.PodFailed:
		c.Reason = ReasonPodFailed
		return c
	case corev1.PodSucceeded:
		c.Reason = ReasonPodCompleted
		return c
	}
	var unknown, unready []string
	look := func(name string, s *corev1.ContainerStatus) {
		switch {
		case s == nil:
			unknown = append(unknown, name)
		case !s.Ready:
			unready = append(unready, name)
		}
	}
	for i := range spec.InitContainers {
		if IsSidecar(&spec.InitContainers[i]) {
			look(spec.InitContainers[i].Name, FindStatus(f.Init, spec.InitContainers[i].Name))
		}
	}
	for i := range spec.Containers {
		look(spec.Containers[i].Name, FindStatus(f.Main, spec.Containers[i].Name))
	}
	if c.Message = joined("containers with unknown status: %s", unknown, "containers with unready status: %s", unready); c.Message != "" {
		c.Reason = ReasonContainersNotReady
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}

func ready(spec *corev1.PodSpec, f Facts, containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var unready []string
	for _, gate := range spec.ReadinessGates {
		switch other := FindCondition(f.Others, gate.ConditionType); {
		case other == nil:
			unready = append(unready, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case other.Status != corev1.ConditionTrue:
			unready = append(unready, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, other.Status))
		}
	}
	if len(unready) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, ReasonReadinessGatesNotReady, strings.Join(unready, ", ")
	}
	return c
}

func initialized(spec *corev1.PodSpec, f Facts) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	var unknown, incomplete []string
	for i := range spec.InitContainers {
		name := spec.InitContainers[i].Name
		s := FindStatus(f.Init, name)
		switch {
		case s == nil:
			unknown = append(unknown, name)
		case IsSidecar(&spec.InitContainers[i]) && (s.Started == nil || !*s.Started):
			incomplete = append(incomplete, name)
		case !IsSidecar(&spec.InitContainers[i]) && !s.Ready:
			incomplete = append(incomplete, name)
		}
	}
	if f.Phase == corev1.PodSucceeded && len(unknown) == 0 {
		c.Reason = ReasonPodCompleted
		return c
	}
	for _, s := range f.Main {
		if s.State.Running != nil || s.State.Terminated != nil {
			return c // A main container has started, so the pod was initialized; a sidecar that restarts doesn't change that.
		}
	}
	if IsTrue(f.Others, corev1.PodInitialized) {
		return c // Nor do init containers that run again, in a new sandbox or because all containers restart.
	}
	if c.Message = joined("containers with unknown status: %s", unknown, "containers with incomplete status: %s", incomplete); c.Message != "" {
		c.Status, c.Reason = corev1.ConditionFalse, ReasonContainersNotInitialized
	}
	return c
}

func joined(firstFormat string, first []string, secondFormat string, second []string) string {
	var parts []string
	if len(first) > 0 {
		parts = append(parts, fmt.Sprintf(firstFormat, first))
	}
	if len(second) > 0 {
		parts = append(parts, fmt.Sprintf(secondFormat, second))
	}
	return strings.Join(parts, ", ")
}
