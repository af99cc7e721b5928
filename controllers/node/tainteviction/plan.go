// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package tainteviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/placement"
)

// grantedSeconds is for how long a pod tolerates a node that isn't ready or can't be reached, unless it says otherwise: what upstream's
// admission plugin DefaultTolerationSeconds writes into every pod, and is taken for granted here.
const grantedSeconds = 300

// lostKeys are the taints of nodes that are lost, or say that they aren't ready.
var lostKeys = []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}

// situation is all that a plan follows from.
type situation struct {
	taints []corev1.Taint
	pods   []*pcorev1.Pod
	// since is from when on each pod has been on the tainted node, as far as was seen.
	since map[types.UID]time.Time
	// hold keeps pods where they are whose node may only seem to be lost.
	hold bool
	now  time.Time
}

// plan is what to do now.
type plan struct {
	// evict these pods; notReady are those that can't be ready, since nobody reaches their node.
	evict, notReady []*pcorev1.Pod
	// since is what the next plan needs.
	since map[types.UID]time.Time
	// wake is when to look again; zero: not needed.
	wake time.Time
}

// makePlan decides about the pods of one node.
func makePlan(s situation) plan {
	p := plan{since: map[types.UID]time.Time{}}
	var taints []corev1.Taint
	unreachable := false
	for _, t := range s.taints {
		unreachable = unreachable || t.Key == corev1.TaintNodeUnreachable
		if t.Effect == corev1.TaintEffectNoExecute {
			taints = append(taints, t)
		}
	}
	for _, pod := range s.pods {
		if unreachable && isReady(pod) {
			p.notReady = append(p.notReady, pod)
		}
		if pod.DeletionTimestamp != nil || len(taints) == 0 {
			continue
		}
		stay, forever, lostOnly := patience(pod.Spec.Tolerations, taints)
		if forever {
			continue
		}
		began, known := s.since[pod.UID]
		if !known {
			began = s.now
		}
		p.since[pod.UID] = began
		end := began.Add(stay)
		switch {
		case end.After(s.now):
			if p.wake.IsZero() || end.Before(p.wake) {
				p.wake = end
			}
		case s.hold && lostOnly:
		default:
			p.evict = append(p.evict, pod)
		}
	}
	return p
}

// patience is for how long a pod with these tolerations stays: as long as the least of those that match; not at all when a taint isn't
// tolerated. lostOnly says that it ends only since the node is lost, or says that it isn't ready.
func patience(tolerations []corev1.Toleration, taints []corev1.Taint) (stay time.Duration, forever, lostOnly bool) {
	forever = true
	var least, leastOther time.Duration = -1, -1
	shorten := func(d *time.Duration, to time.Duration) {
		if *d < 0 || to < *d {
			*d = to
		}
	}
	for i := range taints {
		lost := slices.Contains(lostKeys, taints[i].Key)
		matched := false
		note := func(t *corev1.Toleration) {
			matched = true
			if t.TolerationSeconds == nil {
				return
			}
			d := max(0, time.Duration(*t.TolerationSeconds)*time.Second)
			shorten(&least, d)
			if !lost {
				shorten(&leastOther, d)
			}
		}
		for j := range tolerations {
			if placement.Tolerates(&tolerations[j], &taints[i]) {
				note(&tolerations[j])
				break // The first one that matches counts, as upstream.
			}
		}
		if !matched {
			d := time.Duration(0)
			if lost {
				d = grantedSeconds * time.Second
			} else {
				shorten(&leastOther, d)
			}
			shorten(&least, d)
		}
	}
	if least >= 0 {
		return least, false, leastOther < 0 || leastOther > least
	}
	return 0, forever, false
}

func isReady(pod *pcorev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Bounds of upstream's node-lifecycle-controller: from which part of lost nodes on the fault is taken to be elsewhere, and up to which size
// of a cluster nothing is evicted then.
const (
	partMost  = 0.55
	smallMost = 50
)

// holdBack says that so many nodes are lost that the control plane, or its network, is the more likely culprit.
func holdBack(nodes, lost int) bool {
	switch lost {
	case 0:
		return false
	case nodes:
		return true
	}
	return lost > 2 && float64(lost) >= partMost*float64(nodes) && nodes <= smallMost
}
