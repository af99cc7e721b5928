// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// planPods says which pods to make or which to drop. Dropping comes first: while there are too many, none is made.
func (s *scope) planPods(t *tally, d *decision) {
	want := s.wantActive(t)
	d.drop = s.tooMany(t, want)
	if len(d.drop) > 0 {
		d.drop = d.drop[:min(len(d.drop), workload.Burst)]
		return
	}
	missing := want - len(t.active)
	if replacesEnded(s.job) {
		missing -= int(t.terminating)
	}
	if perNode(s.job) {
		missing = min(missing, len(t.openNodes))
	}
	if missing <= 0 {
		return
	}
	if !perIndex(s.job) {
		if pause := d.backoff.Wait(s.now); pause > 0 {
			d.pause(pause, jobstate.Latest(s.failures()))
			return
		}
	}
	missing = min(missing, workload.Burst)
	names := s.takenNames()
	switch {
	case indexed(s.job):
		s.planIndexes(t, missing, names, d)
	case perNode(s.job):
		for _, node := range t.openNodes[:missing] {
			name := workload.NodePodName(s.job.Name, s.job.UID, node, names)
			names[name] = true
			d.create = append(d.create, wantedPod{name: name, index: jobstate.NoIndex, node: node})
		}
	default:
		for _, name := range workload.FreeNames(s.job.Name, s.job.UID, missing, names) {
			d.create = append(d.create, wantedPod{name: name, index: jobstate.NoIndex})
		}
	}
}

// pause notes that the next pod has to wait, and because of which one.
func (d *decision) pause(wait time.Duration, because *pcorev1.Pod) {
	if d.wait == 0 || wait < d.wait {
		d.wait = wait
	}
	d.paused = because
}

// failures are the pods that failed, whether or not they were counted already. What was dropped ended because we wanted it to.
func (s *scope) failures() []*pcorev1.Pod {
	var out []*pcorev1.Pod
	for _, pod := range s.pods {
		dropped := pod.DeletionTimestamp != nil && !jobstate.IsTracked(pod)
		if jobstate.IsFailed(pod, replacesEnded(s.job)) && !dropped {
			out = append(out, pod)
		}
	}
	return out
}

// wantActive is how many pods should be active at most.
func (s *scope) wantActive(t *tally) int {
	if perNode(s.job) {
		return s.parallelism()
	}
	n, ok := s.completions()
	if ok {
		return max(0, min(n-t.succeeded, s.parallelism()))
	}
	if t.succeeded > 0 {
		return len(t.active) // whatever runs may end, and nothing new starts
	}
	return s.parallelism()
}

// tooMany picks the active pods that have to go: those that could never be counted, doubles, and as many others as there are above the
// wanted number, the least advanced first.
func (s *scope) tooMany(t *tally, want int) []*pcorev1.Pod {
	var drop, left []*pcorev1.Pod
	holder := map[string]*pcorev1.Pod{}
	for _, pod := range t.active {
		place, ok := s.placeOf(t, pod)
		if !ok || !jobstate.IsTracked(pod) || !s.valid(pod) {
			drop = append(drop, pod)
			continue
		}
		if other := holder[place]; place != "" && other != nil {
			order := workload.DeletionOrder([]*pcorev1.Pod{other, pod}, nil, s.now)
			drop = append(drop, order[0])
			holder[place] = order[1]
			continue
		}
		if place == "" {
			left = append(left, pod)
		} else {
			holder[place] = pod
		}
	}
	for _, pod := range holder {
		left = append(left, pod)
	}
	if more := len(left) - max(0, want); more > 0 {
		drop = append(drop, workload.DeletionOrder(left, nil, s.now)[:more]...)
	}
	slices.SortFunc(drop, func(a, b *pcorev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return drop
}

// placeOf is what only one active pod may hold: its index or its node; empty for a Job without either. ok is false for a pod whose
// place is done or isn't wanted any more.
func (s *scope) placeOf(t *tally, pod *pcorev1.Pod) (place string, ok bool) {
	switch {
	case indexed(s.job):
		i := jobstate.Index(pod)
		return strconv.Itoa(i), !t.done.Has(i) && !t.failedIndexes.Has(i)
	case perNode(s.job):
		node, known := workload.TargetNode(pod)
		wanted := s.nodes.stay[node]
		if pod.Spec.NodeName == "" {
			wanted = slices.Contains(s.nodes.start, node)
		}
		return node, known && wanted && !t.doneNodes[node]
	}
	return "", true
}

// planIndexes makes pods of the lowest indexes that are neither done, failed, nor running. An index that waits after a failure doesn't
// keep the others from running.
func (s *scope) planIndexes(t *tally, missing int, names map[string]bool, d *decision) {
	busy := t.done.Union(t.failedIndexes).Union(indexesOf(t.active))
	if replacesEnded(s.job) {
		busy = busy.Union(indexesOf(leaving(s.pods)))
	}
	n, _ := s.completions()
	for _, i := range busy.Missing(missing+len(t.last), n) {
		if len(d.create) == missing {
			return
		}
		want := wantedPod{index: i}
		if last := t.last[i]; last != nil {
			if pause := jobstate.IndexWait(last, s.now); pause > 0 {
				d.pause(pause, last)
				continue
			}
			want.failures, want.ignored = jobstate.IndexFailures(last)
			if jobstate.MatchFailure(s.job.Spec.PodFailurePolicy, last).Counts() {
				want.failures++
			} else {
				want.ignored++
			}
		}
		want.name = indexName(s.job.Name, s.job.UID, i, names)
		names[want.name] = true
		d.create = append(d.create, want)
	}
}

func leaving(pods []*pcorev1.Pod) []*pcorev1.Pod {
	var out []*pcorev1.Pod
	for _, pod := range pods {
		if jobstate.IsEnding(pod) {
			out = append(out, pod)
		}
	}
	return out
}

// takenNames are the names that nobody else may get: those of all pods that are there, and of others'.
func (s *scope) takenNames() map[string]bool {
	names := make(map[string]bool, len(s.pods)+len(s.foreign))
	for _, pod := range s.pods {
		names[pod.Name] = true
	}
	for name := range s.foreign {
		names[name] = true
	}
	return names
}

// countNodes finds the nodes that count, are done, and are open. A node counts if a new pod may start there, or if one runs there that
// may stay. A node is not open while a pod ends there that is to be waited for.
func (s *scope) countNodes(t *tally) {
	t.doneNodes = map[string]bool{}
	for _, node := range s.job.Status.CompletedNodes {
		t.doneNodes[node] = true
	}
	for _, pod := range t.succeededPods {
		if node, ok := workload.TargetNode(pod); ok {
			t.doneNodes[node] = true
		}
	}
	t.wantedNodes = slices.Clone(s.nodes.start)
	busy := map[string]bool{}
	for _, pod := range s.pods {
		active := workload.IsActive(pod)
		if node := pod.Spec.NodeName; active && s.nodes.stay[node] {
			t.wantedNodes = append(t.wantedNodes, node)
		}
		if active || replacesEnded(s.job) && jobstate.IsEnding(pod) {
			if node, ok := workload.TargetNode(pod); ok {
				busy[node] = true
			}
		}
	}
	slices.Sort(t.wantedNodes)
	t.wantedNodes = slices.Compact(t.wantedNodes)
	t.succeeded = 0
	for _, node := range t.wantedNodes {
		switch {
		case t.doneNodes[node]:
			t.succeeded++
		case !busy[node]:
			t.openNodes = append(t.openNodes, node)
		}
	}
}

// failureCounts are the annotations by which a pod's successor knows how often its index has failed.
func (w wantedPod) failureCounts() map[string]string {
	out := map[string]string{batchv1.JobIndexFailureCountAnnotation: strconv.Itoa(int(w.failures))}
	if w.ignored > 0 {
		out[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(int(w.ignored))
	}
	return out
}
