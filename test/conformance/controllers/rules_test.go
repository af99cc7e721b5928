// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Rules that hold along the way.

func countPods(pods []*corev1.Pod, filters ...func(*corev1.Pod) bool) int {
	n := 0
next:
	for _, p := range pods {
		for _, f := range filters {
			if !f(p) {
				continue next
			}
		}
		n++
	}
	return n
}

// atLeast is the availability bound: that many pods satisfy the filters.
func atLeast(n int, filters ...func(*corev1.Pod) bool) rule {
	return func(_ event, pods []*corev1.Pod) string {
		if got := countPods(pods, filters...); got < n {
			return fmt.Sprintf("%d, not at least %d, of %s", got, n, describe(pods))
		}
		return ""
	}
}

// atMost is the surge's bound, or a Job's parallelism.
func atMost(n int, filters ...func(*corev1.Pod) bool) rule {
	return func(_ event, pods []*corev1.Pod) string {
		if got := countPods(pods, filters...); got > n {
			return fmt.Sprintf("%d, not at most %d, of %s", got, n, describe(pods))
		}
		return ""
	}
}

// oneImage is the rule of a Recreate rollout: no two revisions at a time.
func oneImage(_ event, pods []*corev1.Pod) string {
	seen := map[string]bool{}
	for _, p := range pods {
		if !isOver(p) {
			seen[p.Spec.Containers[0].Image] = true
		}
	}
	if len(seen) > 1 {
		return "two revisions run: " + describe(pods)
	}
	return ""
}

// ordinal is the number at the end of a StatefulSet's pod's name.
func ordinal(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Name[strings.LastIndex(p.Name, "-")+1:])
	if err != nil {
		return -1
	}
	return n
}

// inOrder is the rule of an ordered StatefulSet: a pod comes only when all before it, from the first ordinal on, are ready.
func inOrder(first int) rule {
	return func(e event, pods []*corev1.Pod) string {
		if e.kind != came {
			return ""
		}
		for want := first; want < ordinal(e.pod); want++ {
			if countPods(pods, isReady, func(p *corev1.Pod) bool { return ordinal(p) == want }) == 0 {
				return fmt.Sprintf("%s came before ordinal %d was ready: %s", e.pod.Name, want, describe(pods))
			}
		}
		return ""
	}
}

// onePerIndex is the rule of an indexed Job: no index runs twice at a time.
func onePerIndex(_ event, pods []*corev1.Pod) string {
	seen := map[string]string{}
	for _, p := range pods {
		if !active(p) {
			continue
		}
		i := p.Labels["batch.kubernetes.io/job-completion-index"]
		if other := seen[i]; other != "" {
			return fmt.Sprintf("index %s runs twice: %s and %s", i, other, p.Name)
		}
		seen[i] = p.Name
	}
	return ""
}

// onePerNode is the rule of a DaemonSet without surge.
func onePerNode(_ event, pods []*corev1.Pod) string {
	seen := map[string]string{}
	for _, p := range pods {
		node := nodeOf(p)
		if !active(p) || node == "" {
			continue
		}
		if other := seen[node]; other != "" {
			return fmt.Sprintf("two pods on one node: %s and %s", other, p.Name)
		}
		seen[node] = p.Name
	}
	return ""
}
