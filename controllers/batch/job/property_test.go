// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"fmt"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// drawJob draws a Job of any sort.
func drawJob(t *rapid.T) *pbatchv1.Job {
	job := &pbatchv1.Job{}
	s := &job.Spec
	if rapid.Bool().Draw(t, "replaces what has ended") {
		s.PodReplacementPolicy = new(batchv1.Failed)
	}
	s.BackoffLimit = new(rapid.Int32Range(0, 4).Draw(t, "backoff limit"))
	s.Parallelism = new(rapid.Int32Range(1, 4).Draw(t, "parallelism"))
	switch rapid.SampledFrom([]string{"queue", "plain", "indexed", "per index", "success policy", "per node"}).Draw(t, "sort") {
	case "queue":
		return job
	case "per node":
		s.Mode = pbatchv1.JobOncePerNode
		if rapid.Bool().Draw(t, "all at once") {
			s.Parallelism = nil
		}
		return job
	case "plain":
	case "success policy":
		s.CompletionMode = new(batchv1.IndexedCompletion)
		s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: new(int32(1))}}}
	case "per index":
		s.BackoffLimit = nil
		s.BackoffLimitPerIndex = new(rapid.Int32Range(0, 2).Draw(t, "backoff limit per index"))
		if rapid.Bool().Draw(t, "bounded") {
			s.MaxFailedIndexes = new(int32(1))
		}
		s.CompletionMode = new(batchv1.IndexedCompletion)
	case "indexed":
		s.CompletionMode = new(batchv1.IndexedCompletion)
	}
	s.Completions = new(rapid.Int32Range(0, 6).Draw(t, "completions"))
	if rapid.Bool().Draw(t, "failure policy") {
		s.PodReplacementPolicy = new(batchv1.Failed)
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			{Action: batchv1.PodFailurePolicyActionIgnore, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{2}}},
			{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{3}}},
		}}
	}
	return job
}

// step lets one thing happen.
func (m *model) step() {
	ctx := context.Background()
	what := rapid.SampledFrom([]string{
		"reconcile", "reconcile", "reconcile", "see jobs", "see pods", "see pods", "crash", "time", "long time",
		"succeed", "succeed", "fail", "delete", "leave", "leave", "suspend", "shrink", "node",
	}).Draw(m.T, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return
	case "see jobs":
		m.See(&pbatchv1.Job{}, rapid.IntRange(1, 3).Draw(m.T, "events"))
		return
	case "see pods":
		m.See(&pcorev1.Pod{}, rapid.IntRange(1, 5).Draw(m.T, "events"))
		return
	case "crash":
		m.Crash(6, m.reconcile, m.restart)
		return
	case "time":
		m.clock = m.clock.Add(rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second}).Draw(m.T, "time"))
		return
	case "long time":
		m.clock = m.clock.Add(20 * time.Minute)
		return
	case "suspend":
		m.change(func(s *pbatchv1.JobSpec) { s.Suspend = new(s.Suspend == nil || !*s.Suspend) })
		return
	case "shrink":
		m.change(func(s *pbatchv1.JobSpec) {
			s.Parallelism = new(rapid.Int32Range(0, 4).Draw(m.T, "parallelism"))
			if s.CompletionMode != nil && rapid.Bool().Draw(m.T, "completions too") && s.SuccessPolicy == nil {
				s.Completions = s.Parallelism
			}
		})
		return
	case "node":
		m.node()
		return
	}
	pods := m.Pods()
	if len(pods) == 0 {
		return
	}
	pod := lagging.Pick(m.World, "pod", pods)
	switch what {
	case "succeed":
		m.exit(pod, 0)
	case "fail":
		m.exit(pod, rapid.Int32Range(1, 3).Draw(m.T, "exit code"))
	case "delete":
		m.Must(m.Truth.Delete(ctx, pod))
	case "leave":
		m.leave(pod)
	}
}

// node lets a node join or leave; what runs on one that leaves is ended, as the node loops do it.
func (m *model) node() {
	ctx := context.Background()
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", rapid.IntRange(0, 4).Draw(m.T, "node"))}}
	if m.Truth.Get(ctx, client.ObjectKeyFromObject(n), n) != nil {
		m.Must(m.Truth.Create(ctx, n))
		return
	}
	m.Must(m.Truth.Delete(ctx, n))
}

// settle lets everything go well until nothing changes any more. Pods whose node is gone end as the node loops see to it.
func (m *model) settle() {
	if job := m.job(); suspended(job) || job.Spec.Parallelism != nil && *job.Spec.Parallelism == 0 {
		m.change(func(s *pbatchv1.JobSpec) {
			s.Suspend = new(false)
			if s.Parallelism != nil {
				s.Parallelism = new(max(1, *s.Parallelism))
			}
		})
	}
	if perNode(m.job()) {
		_ = m.Truth.Create(context.Background(), &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-0"}})
	}
	for range 60 {
		m.SeeAll()
		m.clock = m.clock.Add(11 * time.Minute)
		m.reconcile()
		m.check()
		for _, pod := range m.Pods() {
			switch {
			case pod.DeletionTimestamp != nil:
				m.leave(pod)
			case workload.IsActive(pod):
				m.exit(pod, 0)
			}
		}
		m.check()
		if isFinished(&m.job().Status) {
			break
		}
	}
	for range 5 {
		m.SeeAll()
		m.reconcile()
		for _, pod := range m.Pods() {
			m.leave(pod)
		}
	}
}

// TestEveryPodIsCountedOnce: with caches that lag, a controller that dies between any two writes, pods that fail, are deleted or end in
// any order, and a user who changes his mind, there are never more active pods than allowed, no index or node has two, none succeeds twice, every
// pod that ended is counted once, and the Job comes to an end.
func TestEveryPodIsCountedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, drawJob(t), rapid.IntRange(0, 4).Draw(t, "nodes"))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.step()
			m.check()
		}
		m.settle()
		m.checkCounts()
	})
}

// TestBackoffLimits: no index fails more often than its limit allows, and once the Job's limit is reached no pod is made.
func TestBackoffLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := &pbatchv1.Job{}
		limit := rapid.Int32Range(0, 3).Draw(t, "limit")
		job.Spec.Completions, job.Spec.Parallelism = new(int32(4)), new(rapid.Int32Range(1, 4).Draw(t, "parallelism"))
		job.Spec.CompletionMode = new(batchv1.IndexedCompletion)
		byIndex := rapid.Bool().Draw(t, "by index")
		if byIndex {
			job.Spec.BackoffLimitPerIndex = &limit
		} else {
			job.Spec.BackoffLimit = &limit
		}
		m := newModel(t, job, 0)
		failures := map[int]int32{}
		total := int32(0)
		for range rapid.IntRange(10, 80).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"reconcile", "reconcile", "see", "fail", "fail", "time", "crash"}).Draw(t, "event") {
			case "reconcile":
				made := m.made
				m.reconcile()
				if !byIndex && total > limit && m.UpToDate(&pcorev1.Pod{}) && m.made > made {
					t.Fatalf("a pod was made after %d failures, the limit is %d", total, limit)
				}
			case "see":
				m.See(&pcorev1.Pod{}, rapid.IntRange(1, 8).Draw(t, "events"))
				m.See(&pbatchv1.Job{}, rapid.IntRange(1, 8).Draw(t, "events"))
			case "fail":
				for _, pod := range m.Pods() {
					if workload.IsActive(pod) && rapid.Bool().Draw(t, "this one") {
						failures[jobstate.Index(pod)]++
						total++
						m.exit(pod, 1)
					}
				}
			case "time":
				m.clock = m.clock.Add(11 * time.Minute)
			case "crash":
				m.Crash(6, m.reconcile, m.restart)
			}
			m.check()
		}
		for index, n := range failures {
			if byIndex && n > limit+1 {
				t.Fatalf("index %d failed %d times, the limit is %d", index, n, limit)
			}
		}
		if most := limit + *job.Spec.Parallelism; !byIndex && total > most {
			t.Fatalf("%d pods failed, the limit is %d with %d at a time", total, limit, *job.Spec.Parallelism)
		}
	})
}
