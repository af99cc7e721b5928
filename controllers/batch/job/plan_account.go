// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"cmp"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// mostUncounted is how many pods the status names by UID at a time, so that it stays small. Upstream's number.
const mostUncounted = 500

// account is what counting comes to: the status, and the pods whose finalizer may go once that status is written.
type account struct {
	status  pbatchv1.JobStatus
	release []*pcorev1.Pod
}

// takeAccount counts the pods that ended, and writes the end of the Job into the status when all is counted. s.pods are as they are after
// the decision was carried out.
func takeAccount(s *scope, d *decision) account {
	b := &books{scope: s, decision: d, tally: s.count(d.end.failed()), uncounted: uncountedOf(&s.job.Status)}
	b.status = *s.job.Status.DeepCopy()
	if b.status.UncountedTerminatedPods == nil {
		b.status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	b.settle()
	full := b.enter()
	if indexed(s.job) {
		b.status.CompletedIndexes = b.done.String()
		b.status.Succeeded = int32(b.done.Len())
		b.status.FailedIndexes = nil
		if perIndex(s.job) {
			b.status.FailedIndexes = new(b.failedIndexes.String())
		}
	}
	if perNode(s.job) {
		b.status.MatchingNodes = new(int32(len(b.wantedNodes)))
		b.status.Succeeded = int32(b.tally.succeeded)
		if len(b.doneNodes) > 0 {
			b.status.CompletedNodes = sortedKeys(b.doneNodes)
		}
	}
	b.status.Active, b.status.Ready, b.status.Terminating = int32(len(b.active)), new(b.ready), new(b.terminating)
	b.begin()
	b.conclude(full)
	return account{b.status, b.release}
}

// books are what is needed while the pods are counted.
type books struct {
	*scope
	*tally
	decision  *decision
	uncounted uncounted
	status    pbatchv1.JobStatus
	release   []*pcorev1.Pod
	// done are the indexes that the status is to show as done; it grows with entries.
	done jobstate.Indexes
}

// settle moves the pods that have lost their finalizer from the list of UIDs to the counters.
func (b *books) settle() {
	held := map[types.UID]bool{}
	for _, pod := range b.pods {
		if jobstate.IsTracked(pod) {
			held[pod.UID] = true
		}
	}
	u := b.status.UncountedTerminatedPods
	keep := func(list []types.UID) (kept []types.UID, settled int32) {
		for _, uid := range list {
			if held[uid] {
				kept = append(kept, uid)
			}
		}
		return kept, int32(len(list) - len(kept))
	}
	var succeeded, failed int32
	u.Succeeded, succeeded = keep(u.Succeeded)
	u.Failed, failed = keep(u.Failed)
	b.status.Succeeded += succeeded
	b.status.Failed += failed
}

// enter writes the pods that ended into the status and notes them for release. full says that not all of them had room.
func (b *books) enter() (full bool) {
	if indexed(b.job) {
		n, _ := b.completions()
		b.done = jobstate.ParseIndexes(b.job.Status.CompletedIndexes, n)
	}
	entered, newIndexes := 0, []int{}
	u := b.status.UncountedTerminatedPods
	for _, pod := range inOrder(b.pods) {
		if !jobstate.IsTracked(pod) || !b.mayRelease(pod) {
			continue
		}
		if entered+len(u.Succeeded)+len(u.Failed) >= mostUncounted {
			full = true
			break
		}
		b.release = append(b.release, pod)
		if b.uncounted.succeeded[pod.UID] || b.uncounted.failed[pod.UID] || !b.valid(pod) {
			continue
		}
		switch {
		case pod.Status.Phase == corev1.PodSucceeded && indexed(b.job):
			newIndexes = append(newIndexes, jobstate.Index(pod))
			entered++
		case pod.Status.Phase == corev1.PodSucceeded && perNode(b.job):
			entered++ // countNodes has put its node among those that are done
		case pod.Status.Phase == corev1.PodSucceeded:
			u.Succeeded = append(u.Succeeded, pod.UID)
		case b.countsAsFailed(pod):
			u.Failed = append(u.Failed, pod.UID)
		}
	}
	b.done = b.done.Union(jobstate.IndexesOf(newIndexes...))
	return full
}

// inOrder sorts pods by index and name, so that indexes are done in order and an answer doesn't depend on the order of a list.
func inOrder(pods []*pcorev1.Pod) []*pcorev1.Pod {
	out := slices.Clone(pods)
	slices.SortFunc(out, func(a, b *pcorev1.Pod) int {
		return cmp.Or(cmp.Compare(jobstate.Index(a), jobstate.Index(b)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// mayRelease says whether the pod's finalizer can go after this count: when the pod ended, unless its successor is still to take its
// count over; when the Job fails and the pod was deleted; and always when the Job is being deleted.
func (b *books) mayRelease(pod *pcorev1.Pod) bool {
	switch {
	case b.job.DeletionTimestamp != nil, pod.Status.Phase == corev1.PodSucceeded:
		return true
	case workload.IsActive(pod):
		return false
	case b.decision.end.failed():
		return true
	case !jobstate.IsFailed(pod, replacesEnded(b.job)):
		return false // upstream lets it go uncounted when the Job has succeeded meanwhile
	}
	return b.decision.end != nil || !perIndex(b.job) || b.last[jobstate.Index(pod)] != pod
}

// countsAsFailed says whether a pod that is released without having succeeded is a failure that counts. When the Job fails, whatever
// hasn't succeeded has failed.
func (b *books) countsAsFailed(pod *pcorev1.Pod) bool {
	if !jobstate.IsFailed(pod, replacesEnded(b.job)) && (!b.decision.end.failed() || workload.IsActive(pod)) {
		return false
	}
	return jobstate.MatchFailure(b.job.Spec.PodFailurePolicy, pod).Counts()
}

// begin keeps the start time and the condition Suspended.
func (b *books) begin() {
	stamp := condition.Stamp(b.now)
	if b.status.StartTime == nil && !suspended(b.job) {
		b.status.StartTime = &stamp
	}
	if b.decision.end != nil || b.job.DeletionTimestamp != nil {
		return
	}
	_, known := condition.Job.Get(b.status.Conditions, string(batchv1.JobSuspended))
	was := isTrue(&b.status, batchv1.JobSuspended)
	switch {
	case suspended(b.job):
		b.set(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended")
		if !was {
			b.status.StartTime = nil
		}
	case known:
		b.set(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed")
		if was {
			b.status.StartTime = &stamp // the deadline counts from here
		}
	}
}

// conclude writes the interim condition, and the final one when nothing is left to count and no pod is left that may run.
func (b *books) conclude(full bool) {
	end := b.decision.end
	if end == nil {
		return
	}
	if !isTrue(&b.status, end.condition) {
		b.set(end.condition, corev1.ConditionTrue, end.reason, end.message)
	}
	u := b.status.UncountedTerminatedPods
	if full || len(b.release)+len(u.Succeeded)+len(u.Failed)+len(b.active) > 0 || b.terminating > 0 {
		return
	}
	if end.failed() {
		b.set(batchv1.JobFailed, corev1.ConditionTrue, end.reason, end.message)
		return
	}
	b.set(batchv1.JobComplete, corev1.ConditionTrue, end.reason, end.message)
	stamp := condition.Stamp(b.now)
	b.status.CompletionTime = &stamp
}

func (b *books) set(kind batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) {
	b.status.Conditions = condition.Job.Set(b.status.Conditions, condition.Condition{
		Type: string(kind), Status: status, Reason: reason, Message: message,
	}, b.now)
}

func sortedKeys(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
