// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// slowStart is how long a running container may take to become ready before that counts as a problem. Without it every
// start of a pod would pass through a message that nobody needs, at the cost of a write.
const slowStart = 10 * time.Second

// Problem is what keeps a pod from becoming ready.
type Problem struct {
	// Reason is one word for machines.
	Reason string
	// Message is one sentence for people, which names the pod.
	Message string
}

// severity orders problems: the lower, the more it tells about why a rollout doesn't end.
type severity int

const (
	waiting severity = iota
	unplaced
	failed
	restarting
	notReady
	fine
)

// FirstProblem returns the problem that tells most about why the active pods aren't all ready; equal ones in the order
// of the pods' names. Without one, wait is when to look again (0: no need).
func FirstProblem(pods []*pcorev1.Pod, now time.Time) (problem *Problem, wait time.Duration) {
	best, name := fine, ""
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil || IsReady(pod) || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		s, p, again := diagnose(pod, now)
		if s < best || (s == best && s != fine && cmp.Less(pod.Name, name)) {
			best, name, problem = s, pod.Name, p
		}
		if again > 0 && (wait == 0 || again < wait) {
			wait = again
		}
	}
	return problem, wait
}

// diagnose finds what is wrong with one pod that isn't ready.
func diagnose(pod *pcorev1.Pod, now time.Time) (severity, *Problem, time.Duration) {
	if pod.Status.Phase == corev1.PodFailed {
		reason := cmp.Or(pod.Status.Reason, "PodFailed")
		return failed, &Problem{reason, sentence("Pod %s failed", pod.Name, reason, pod.Status.Message)}, 0
	}
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return unplaced, &Problem{c.Reason, sentence("Pod %s isn't placed on a node", pod.Name, c.Reason, c.Message)}, 0
		}
	}
	s, problem, wait := fine, (*Problem)(nil), time.Duration(0)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			cs, cp, again := diagnoseContainer(pod.Name, &list[i], now)
			if cs < s {
				s, problem = cs, cp
			}
			if again > 0 && (wait == 0 || again < wait) {
				wait = again
			}
		}
	}
	return s, problem, wait
}

func diagnoseContainer(pod string, c *corev1.ContainerStatus, now time.Time) (severity, *Problem, time.Duration) {
	where := fmt.Sprintf("Container %s of pod %s", c.Name, pod)
	switch {
	case c.State.Waiting != nil:
		w := c.State.Waiting
		switch w.Reason {
		case "", "ContainerCreating", "PodInitializing":
			return fine, nil, 0
		}
		return waiting, &Problem{w.Reason, sentence("%s is waiting", where, w.Reason, w.Message)}, 0
	case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
		t := c.State.Terminated
		reason := cmp.Or(t.Reason, "Error")
		return restarting, &Problem{reason, sentence("%s ended with exit code "+fmt.Sprint(t.ExitCode), where, reason, t.Message)}, 0
	case c.State.Running != nil && !c.Ready:
		if left := c.State.Running.StartedAt.Add(slowStart).Sub(now); left > 0 {
			return fine, nil, left
		}
		return notReady, &Problem{"ContainersNotReady", where + " runs, but isn't ready."}, 0
	}
	return fine, nil, 0
}

// sentence joins what happened to whom with the reason and, when there is one, the message.
func sentence(format, who, reason, message string) string {
	out := fmt.Sprintf(format, who)
	if reason != "" {
		out += ": " + reason
	}
	if message != "" {
		out += ": " + message
	}
	if last := out[len(out)-1]; last != '.' {
		out += "."
	}
	return out
}
