// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Names of a pod's columns in status.columns.
const (
	ColumnReady    = "ready"
	ColumnStatus   = "status"
	ColumnRestarts = "restarts"
)

// ReasonTooManyRestarts is status.reason of a pod that failed because a container used up spec.maxRestarts.
const ReasonTooManyRestarts = "TooManyRestarts"

// ReasonNodeDown is status.reason of a pod whose node was stopped in order; it runs again when the node does.
const ReasonNodeDown = "NodeDown"

// reasonNodeLost is the pod's status.reason once its node is unreachable; kubectl then shows Unknown.
const reasonNodeLost = "NodeLost"

// Columns computes what kubectl shows for the pod: READY, STATUS and RESTARTS, after printPod of upstream's
// pkg/printers/internalversion. RESTARTS is without the age of the last restart, which would be stale when read.
func Columns(pod *pcorev1.Pod, deleting bool) pcorev1.Columns {
	v := view{status: &pod.Status.PodStatus, spec: &pod.Spec.PodSpec, total: len(pod.Spec.Containers)}
	v.reason = string(v.status.Phase)
	if v.reason == "" {
		v.reason = string(corev1.PodPending)
	}
	if v.status.Reason != "" {
		v.reason = v.status.Reason
	}
	if c := FindCondition(v.status.Conditions, corev1.PodScheduled); c != nil && c.Reason == corev1.PodReasonSchedulingGated {
		v.reason = corev1.PodReasonSchedulingGated
	}
	if initializing := v.lookAtInit(); !initializing || IsTrue(v.status.Conditions, corev1.PodInitialized) {
		v.lookAtMain()
	}
	if v.status.Phase == corev1.PodFailed && v.status.Reason == ReasonTooManyRestarts {
		v.reason = ReasonTooManyRestarts // says more than how the last try ended
	}
	if v.status.Reason == ReasonNodeDown {
		v.reason = ReasonNodeDown // nor does how its containers were stopped
	}
	switch {
	case deleting && v.status.Reason == reasonNodeLost:
		v.reason = "Unknown"
	case deleting && !IsTerminal(v.status.Phase):
		v.reason = "Terminating"
	}
	return pcorev1.Columns{
		ColumnReady:    fmt.Sprintf("%d/%d", v.ready, v.total),
		ColumnStatus:   v.reason,
		ColumnRestarts: strconv.Itoa(v.restarts),
	}
}

type view struct {
	status *corev1.PodStatus
	spec   *corev1.PodSpec

	reason                                   string
	ready, total, restarts, sidecarsRestarts int
}

func (v *view) lookAtInit() (initializing bool) {
	sidecars := map[string]bool{}
	for i := range v.spec.InitContainers {
		if IsSidecar(&v.spec.InitContainers[i]) {
			sidecars[v.spec.InitContainers[i].Name] = true
			v.total++
		}
	}
	for i := range v.status.InitContainerStatuses {
		s := &v.status.InitContainerStatuses[i]
		v.restarts += int(s.RestartCount)
		if sidecars[s.Name] {
			v.sidecarsRestarts += int(s.RestartCount)
		}
		switch {
		case s.State.Terminated != nil && s.State.Terminated.ExitCode == 0:
			continue
		case sidecars[s.Name] && s.Started != nil && *s.Started:
			if s.Ready {
				v.ready++
			}
			continue
		case s.State.Terminated != nil:
			v.reason = "Init:" + endReason(s.State.Terminated)
		case s.State.Waiting != nil && s.State.Waiting.Reason != "" && s.State.Waiting.Reason != "PodInitializing":
			v.reason = "Init:" + s.State.Waiting.Reason
		default:
			v.reason = fmt.Sprintf("Init:%d/%d", i, len(v.spec.InitContainers))
		}
		return true
	}
	return false
}

func (v *view) lookAtMain() {
	v.restarts = v.sidecarsRestarts
	running, failure := false, ""
	for i := len(v.status.ContainerStatuses) - 1; i >= 0; i-- {
		s := &v.status.ContainerStatuses[i]
		v.restarts += int(s.RestartCount)
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			v.reason = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			v.reason = endReason(s.State.Terminated)
			if s.State.Terminated.ExitCode != 0 {
				failure = v.reason
			}
		case s.Ready && s.State.Running != nil:
			running = true
			v.ready++
		}
	}
	if v.reason != "Completed" {
		return
	}
	switch {
	case running && IsTrue(v.status.Conditions, corev1.PodReady):
		v.reason = "Running"
	case failure != "":
		v.reason = failure
	case running:
		v.reason = "NotReady"
	}
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}
