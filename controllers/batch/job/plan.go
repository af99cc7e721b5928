// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// scope is all that one look at a Job knows.
type scope struct {
	job      *pbatchv1.Job
	selector labels.Selector
	// pods are the Job's own, ended and deleted ones included; own writes are laid over.
	pods []*pcorev1.Pod
	// foreign are names that pods of others hold.
	foreign map[string]bool
	// nodes are those that the pods belong on; only known with the mode OncePerNode.
	nodes nodeView
	// backoff is as of the pods that were counted already.
	backoff jobstate.Backoff
	now     time.Time
}

// nodeView is what a Job with a pod on every node knows about nodes.
type nodeView struct {
	// start are the names of the nodes that a new pod may start on, in order.
	start []string
	// stay are the nodes on which a pod may stay that is there already.
	stay map[string]bool
}

// decision is what to do about a Job. At most one of create, drop and kill has entries, except that everything is killed or dropped
// when the Job ends.
type decision struct {
	// end says that the Job has reached its end, well or badly; nil as long as it goes on.
	end *ending
	// create are the pods to make.
	create []wantedPod
	// drop are pods that are too many: they go without being counted.
	drop []*pcorev1.Pod
	// kill are the pods that run when the Job fails: they go and count as failed.
	kill []*pcorev1.Pod
	// backoff is with the pods that ended since the last count.
	backoff jobstate.Backoff
	// paused is the pod whose failure keeps the next one waiting.
	paused *pcorev1.Pod
	// wait is when time alone changes something; 0 means never.
	wait time.Duration
}

// ending is how a Job ends: the interim condition that is written before the last finalizers go.
type ending struct {
	condition       batchv1.JobConditionType // FailureTarget or SuccessCriteriaMet
	reason, message string
}

func (e *ending) failed() bool { return e != nil && e.condition == batchv1.JobFailureTarget }

// wantedPod is a pod to make. index is jobstate.NoIndex and node empty where the Job has none.
type wantedPod struct {
	name  string
	index int
	node  string
	// failures and ignored are how often pods of this index have failed, for a Job that counts per index.
	failures, ignored int32
}

func indexed(job *pbatchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

func perNode(job *pbatchv1.Job) bool { return job.Spec.Mode == pbatchv1.JobOncePerNode }

func perIndex(job *pbatchv1.Job) bool { return job.Spec.BackoffLimitPerIndex != nil }

func suspended(job *pbatchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

// replacesEnded says whether a pod is replaced only once it has ended for good.
func replacesEnded(job *pbatchv1.Job) bool {
	return job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

// parallelism is how many pods may run at a time.
func (s *scope) parallelism() int {
	switch p := s.job.Spec.Parallelism; {
	case p != nil:
		return int(*p)
	case perNode(s.job):
		return math.MaxInt32
	}
	return 1
}

// completions is how many successes are wanted; ok is false when one success decides for all. A Job with a pod on every node has its
// own way to count.
func (s *scope) completions() (n int, ok bool) {
	if c := s.job.Spec.Completions; c != nil {
		return int(*c), true
	}
	return 1, s.job.Spec.Parallelism == nil
}

func (s *scope) backoffLimit() int32 {
	switch l := s.job.Spec.BackoffLimit; {
	case l != nil:
		return *l
	case perIndex(s.job):
		return math.MaxInt32
	}
	return 6
}

// tally is what the pods add up to.
type tally struct {
	active []*pcorev1.Pod
	// terminating and ready are counters of the status.
	terminating, ready int32
	// succeeded and failed are pods that ended and aren't in the status yet.
	succeededPods, failedPods []*pcorev1.Pod
	// succeeded and failed are the totals, with what isn't in the status yet.
	succeeded, failed int
	// done and failedIndexes are the indexes that succeeded and failed for good.
	done, failedIndexes jobstate.Indexes
	// wantedNodes are the nodes that count, in order; doneNodes are those on which a pod succeeded, others included; openNodes are the
	// wanted ones that still need a pod.
	wantedNodes, openNodes []string
	doneNodes              map[string]bool
	// last are, for a Job that counts per index, the latest failed pods of indexes that have to be tried again. They are kept until
	// their successors are there, which take over the count.
	last map[int]*pcorev1.Pod
}

// valid says whether a pod can count: a pod of an Indexed Job needs an index below completions, one of a Job with a pod on every node
// needs its node.
func (s *scope) valid(pod *pcorev1.Pod) bool {
	switch {
	case indexed(s.job):
		n, _ := s.completions()
		i := jobstate.Index(pod)
		return i != jobstate.NoIndex && i < n
	case perNode(s.job):
		_, ok := workload.TargetNode(pod)
		return ok
	}
	return true
}

// count adds up the pods. failing says that the Job has failed: a pod that is ended for it counts, but its index isn't lost. Upstream's rule.
func (s *scope) count(failing bool) *tally {
	t := &tally{}
	status := &s.job.Status
	uncounted := uncountedOf(status)
	onlyEnded := replacesEnded(s.job)
	for _, pod := range s.pods {
		switch {
		case workload.IsActive(pod):
			t.active = append(t.active, pod)
			if workload.IsReady(pod) {
				t.ready++
			}
		case jobstate.IsEnding(pod):
			t.terminating++
		}
		if !jobstate.IsTracked(pod) || !s.valid(pod) {
			continue
		}
		switch {
		case pod.Status.Phase == corev1.PodSucceeded && !uncounted.succeeded[pod.UID] && !uncounted.failed[pod.UID]:
			t.succeededPods = append(t.succeededPods, pod)
		case jobstate.IsFailed(pod, onlyEnded) && !uncounted.failed[pod.UID]:
			t.failedPods = append(t.failedPods, pod)
		}
	}
	t.succeeded = int(status.Succeeded) + len(t.succeededPods) + len(uncounted.succeeded)
	t.failed = int(status.Failed) + len(uncounted.failed)
	for _, pod := range t.failedPods {
		if jobstate.MatchFailure(s.job.Spec.PodFailurePolicy, pod).Counts() {
			t.failed++
		}
	}
	switch {
	case indexed(s.job):
		s.countIndexes(t, failing)
	case perNode(s.job):
		s.countNodes(t)
	}
	return t
}

// countIndexes finds the indexes that are done, and those that failed.
func (s *scope) countIndexes(t *tally, failing bool) {
	below, _ := s.completions()
	t.done = jobstate.ParseIndexes(s.job.Status.CompletedIndexes, below).Union(indexesOf(t.succeededPods))
	t.succeeded = t.done.Len()
	if !perIndex(s.job) {
		return
	}
	if text := s.job.Status.FailedIndexes; text != nil {
		t.failedIndexes = jobstate.ParseIndexes(*text, below)
	}
	var failed []int
	for _, pod := range t.failedPods {
		if s.indexFails(pod) && (!failing || pod.DeletionTimestamp == nil) {
			failed = append(failed, jobstate.Index(pod))
		}
	}
	t.failedIndexes = t.failedIndexes.Union(jobstate.IndexesOf(failed...))
	t.last = s.lastFailures(t)
}

// indexFails says whether the index of a failed pod is lost with it.
func (s *scope) indexFails(pod *pcorev1.Pod) bool {
	failure := jobstate.MatchFailure(s.job.Spec.PodFailurePolicy, pod)
	if failure.Action == batchv1.PodFailurePolicyActionFailIndex {
		return true
	}
	before, _ := jobstate.IndexFailures(pod)
	return failure.Counts() && before >= *s.job.Spec.BackoffLimitPerIndex
}

// lastFailures finds the failed pods whose successors are still to be made.
func (s *scope) lastFailures(t *tally) map[int]*pcorev1.Pod {
	running := indexesOf(t.active)
	last := map[int]*pcorev1.Pod{}
	for _, pod := range s.pods {
		i := jobstate.Index(pod)
		if !jobstate.IsTracked(pod) || !s.valid(pod) || !jobstate.IsFailed(pod, replacesEnded(s.job)) ||
			t.done.Has(i) || t.failedIndexes.Has(i) || running.Has(i) {
			continue
		}
		if old := last[i]; old == nil || tries(old) < tries(pod) || tries(old) == tries(pod) && jobstate.Latest([]*pcorev1.Pod{old, pod}) == pod {
			last[i] = pod
		}
	}
	return last
}

// tries is how often pods of this pod's index had failed when it was made.
func tries(pod *pcorev1.Pod) int32 {
	counted, ignored := jobstate.IndexFailures(pod)
	return counted + ignored
}

func indexesOf(pods []*pcorev1.Pod) jobstate.Indexes {
	out := make([]int, 0, len(pods))
	for _, pod := range pods {
		if i := jobstate.Index(pod); i != jobstate.NoIndex {
			out = append(out, i)
		}
	}
	return jobstate.IndexesOf(out...)
}

// uncounted are the pods that the status knows by UID.
type uncounted struct{ succeeded, failed map[types.UID]bool }

func uncountedOf(status *pbatchv1.JobStatus) uncounted {
	out := uncounted{map[types.UID]bool{}, map[types.UID]bool{}}
	if u := status.UncountedTerminatedPods; u != nil {
		for _, uid := range u.Succeeded {
			out.succeeded[uid] = true
		}
		for _, uid := range u.Failed {
			out.failed[uid] = true
		}
	}
	return out
}

// isTrue says whether a condition of the Job's status is true.
func isTrue(status *pbatchv1.JobStatus, kind batchv1.JobConditionType) bool {
	return find(status, kind) != nil
}

// find returns a condition if it is true.
func find(status *pbatchv1.JobStatus, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range status.Conditions {
		if c := &status.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// isFinished says whether the Job has ended for good.
func isFinished(status *pbatchv1.JobStatus) bool {
	return isTrue(status, batchv1.JobComplete) || isTrue(status, batchv1.JobFailed)
}

// makePlan decides. A Job that is being deleted makes and deletes no pods: garbage collection does the latter.
func makePlan(s *scope) decision {
	t := s.count(find(&s.job.Status, batchv1.JobFailureTarget) != nil)
	d := decision{backoff: s.backoff.Next(t.succeededPods, t.failedPods)}
	d.end = s.findEnd(t, &d)
	switch {
	case d.end.failed():
		d.kill = t.active
	case d.end != nil:
		d.drop = t.active
	case s.job.DeletionTimestamp != nil:
	case suspended(s.job):
		d.drop = t.active
	default:
		s.planPods(t, &d)
	}
	if d.end == nil && s.complete(t, len(t.active)-len(d.drop)+len(d.create)) {
		d.end = &ending{batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods"}
	}
	d.drop = slices.Clip(d.drop)
	return d
}

// findEnd says whether and how the Job ends, in upstream's order: what was decided before, failure, success by policy. That all
// completions are reached isn't looked at here.
func (s *scope) findEnd(t *tally, d *decision) *ending {
	status := &s.job.Status
	for _, kind := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget} {
		if c := find(status, kind); c != nil {
			return &ending{kind, c.Reason, c.Message}
		}
	}
	if message, ok := s.failedByPolicy(); ok {
		return failure(batchv1.JobReasonPodFailurePolicy, message)
	}
	if t.failed > int(s.backoffLimit()) || s.restartedTooOften() {
		return failure(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	if limit := s.job.Spec.ActiveDeadlineSeconds; limit != nil && !suspended(s.job) {
		left := time.Duration(*limit) * time.Second
		if began := status.StartTime; began != nil && !isTrue(status, batchv1.JobSuspended) { // else it starts now
			left = began.Add(left).Sub(s.now)
		}
		if left <= 0 {
			return failure(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		}
		d.wait = left
	}
	if !indexed(s.job) {
		return nil
	}
	n, _ := s.completions()
	if perIndex(s.job) {
		failed := t.failedIndexes.Len()
		if most := s.job.Spec.MaxFailedIndexes; most != nil && failed > int(*most) {
			return failure(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
		}
		if failed > 0 && failed+t.done.Len() >= n {
			return failure(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
		}
	}
	if message, met := jobstate.MatchSuccess(s.job.Spec.SuccessPolicy, n, t.done); met {
		return &ending{batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message}
	}
	return nil
}

func failure(reason, message string) *ending {
	return &ending{batchv1.JobFailureTarget, reason, message}
}

// failedByPolicy says whether a failed pod matches a rule with the action FailJob, counted or not. Pods are looked at by name, so that
// the message doesn't depend on the order of a list.
func (s *scope) failedByPolicy() (message string, ok bool) {
	if s.job.Spec.PodFailurePolicy == nil {
		return "", false
	}
	var first *pcorev1.Pod
	for _, pod := range s.failures() {
		if first != nil && first.Name < pod.Name {
			continue
		}
		if f := jobstate.MatchFailure(s.job.Spec.PodFailurePolicy, pod); f.Action == batchv1.PodFailurePolicyActionFailJob {
			first, message = pod, f.Message
		}
	}
	return message, first != nil
}

// restartedTooOften is the backoff limit of pods that restart in place.
func (s *scope) restartedTooOften() bool {
	if s.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n := int32(0)
	for _, pod := range s.pods {
		if pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodPending {
			n += jobstate.Restarts(pod)
		}
	}
	return n > 0 && n >= s.backoffLimit()
}

// complete says whether enough pods have succeeded, when that many are active.
func (s *scope) complete(t *tally, active int) bool {
	if active > 0 {
		return false
	}
	if perNode(s.job) {
		// Without any matching node the Job waits for one.
		return len(t.wantedNodes) > 0 && t.succeeded == len(t.wantedNodes)
	}
	n, ok := s.completions()
	if !ok {
		return t.succeeded > 0
	}
	return t.succeeded >= n
}
