// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// finished holds when a Job is complete, with that many pods that ended well.
func finished(succeeded int) condition {
	return all(tells("Complete", "True", ""), tallies(fmt.Sprintf("active=0 succeeded=%d", succeeded)))
}

// failed holds when a Job has failed for a reason, and none of its pods runs any more.
func failed(reason string) condition {
	return all(tells("Failed", "True", reason), tallies("active=0"))
}

// all holds when all conditions do.
func all(conditions ...condition) condition {
	return func(o object) string {
		for _, c := range conditions {
			if sentence := c(o); sentence != "" {
				return sentence
			}
		}
		return ""
	}
}

// tallies is has for kinds without observedGeneration upstream.
func tallies(counters string) condition {
	return func(o object) string {
		counted := has(counters)
		o.Unstructured = o.DeepCopy()
		o.SetGeneration(0)
		return counted(o)
	}
}

// tracked holds when no finished pod waits for being counted.
func tracked(o object) string {
	uncounted, _ := o.at("status.uncountedTerminatedPods").(map[string]any)
	if len(uncounted) > 0 {
		return "pods aren't counted yet"
	}
	return ""
}

const indexed = "spec: {completionMode: Indexed}"

// ofIndex is the running pod of an index.
func (s *script) ofIndex(i int) *corev1.Pod {
	return s.waitPods(1, index(fmt.Sprint(i)), started)[0]
}

var jobScenarios = []scenario{
	{"job/one pod", func(s *script) {
		s.create(job("work"))
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/work", finished(1), tracked)
	}},
	{"job/runs", func(s *script) {
		s.create(job("work"))
		s.waitPods(1, started)
		s.wait("job/work", tallies("active=1 ready=1"))
	}},
	{"job/completions one after another", func(s *script) {
		s.always("one at a time", atMost(1, active))
		s.create(job("work", "spec: {completions: 3}"))
		for n := range 3 {
			s.exit(0, s.waitPods(1, started)...)
			s.waitPods(n+1, over)
		}
		s.wait("job/work", finished(3), tracked)
	}},
	{"job/parallelism", func(s *script) {
		s.always("never above parallelism", atMost(2, active))
		s.create(job("work", "spec: {completions: 4, parallelism: 2}"))
		s.exit(0, s.waitPods(2, started)...)
		s.waitPods(2, over)
		s.exit(0, s.waitPods(2, started)...)
		s.wait("job/work", finished(4), tracked)
	}},
	{"job/parallelism above what is left", func(s *script) {
		s.always("never above what is left", atMost(2, active))
		s.create(job("work", "spec: {completions: 2, parallelism: 5}"))
		s.exit(0, s.waitPods(2, started)...)
		s.wait("job/work", finished(2), tracked)
	}},
	{"job/work queue", func(s *script) {
		s.create(job("work", "spec: {parallelism: 3}"))
		pods := s.waitPods(3, started)
		s.exit(0, pods[0])
		s.wait("job/work", tallies("active=2 succeeded=1"))
		s.exit(0, pods[1], pods[2])
		s.wait("job/work", finished(3), tracked)
	}},
	{"job/parallelism grows and shrinks", func(s *script) {
		s.create(job("work", "spec: {completions: 6, parallelism: 1}"))
		s.waitPods(1, started)
		s.patch("job/work", "spec: {parallelism: 3}")
		s.waitPods(3, started)
		s.patch("job/work", "spec: {parallelism: 1}")
		s.waitPods(1, active)
		s.wait("job/work", tallies("active=1 ready=1 terminating=0"))
		s.waitPods(1)
	}},
	{"job/parallelism zero", func(s *script) {
		s.create(job("work", "spec: {parallelism: 0}"))
		s.wait("job/work", func(o object) string {
			if o.at("status.startTime") == nil {
				return "it hasn't started"
			}
			return ""
		})
	}},
	{"job/a pod fails and is replaced", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 2}"))
		s.exit(1, s.waitPods(1, started)...)
		s.wait("job/work", tallies("failed=1"))
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/work", finished(1), tallies("failed=1"), tracked)
	}},
	{"job/backoff limit zero", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0}"))
		s.exit(1, s.waitPods(1, started)...)
		s.wait("job/work", failed("BackoffLimitExceeded"), tallies("failed=1"), tracked)
	}},
	{"job/backoff limit ends the others", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0, completions: 3, parallelism: 3}"))
		s.exit(1, s.waitPods(3, started)[0])
		s.wait("job/work", failed("BackoffLimitExceeded"), tallies("failed=3"), tracked)
	}},
	{"job/restarts count against the backoff limit", func(s *script) {
		s.create(job("work", image("crash:1"), "spec: {backoffLimit: 1, template: {spec: {restartPolicy: OnFailure}}}"))
		s.wait("job/work", failed("BackoffLimitExceeded"), tracked)
		s.waitPods(0)
	}},
	{"job/active deadline", func(s *script) {
		s.create(job("work", "spec: {activeDeadlineSeconds: 3600, completions: 2, parallelism: 2}"))
		s.waitPods(2, started)
		s.patch("job/work", "spec: {activeDeadlineSeconds: 2}")
		s.wait("job/work", failed("DeadlineExceeded"), tracked)
	}},
	{"job/a running pod is deleted", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 3}"))
		old := s.waitPods(1, started)[0]
		s.deletePods(old)
		s.gone("pod/" + old.Name)
		s.exit(0, s.waitPods(1, started, func(p *corev1.Pod) bool { return p.UID != old.UID })...)
		s.wait("job/work", finished(1), tallies("failed=1"), tracked)
	}},
	{"job/a finished pod is deleted", func(s *script) {
		s.create(job("work", "spec: {completions: 2, parallelism: 1}"))
		old := s.waitPods(1, started)[0]
		s.exit(0, old)
		s.wait("job/work", tallies("succeeded=1"))
		s.deletePods(old)
		s.gone("pod/" + old.Name)
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/work", finished(2), tracked)
	}},
	{"job/suspended from the start", func(s *script) {
		s.create(job("work", "spec: {suspend: true}"))
		s.wait("job/work", tells("Suspended", "True", "JobSuspended"))
		s.waitPods(0)
	}},
	{"job/suspend and resume", func(s *script) {
		s.create(job("work", "spec: {completions: 2, parallelism: 2}"))
		s.waitPods(2, started)
		s.patch("job/work", "spec: {suspend: true}")
		s.wait("job/work", tells("Suspended", "True", "JobSuspended"), tallies("active=0 terminating=0"), tracked)
		s.waitPods(0)
		s.patch("job/work", "spec: {suspend: false}")
		s.wait("job/work", tells("Suspended", "False", "JobResumed"))
		s.exit(0, s.waitPods(2, started)...)
		s.wait("job/work", finished(2), tracked)
	}},
	{"job/suspended with some done", func(s *script) {
		s.create(job("work", "spec: {completions: 3, parallelism: 2}", indexed))
		s.exit(0, s.ofIndex(0))
		s.wait("job/work", tallies("succeeded=1"))
		s.waitPods(2, started)
		s.patch("job/work", "spec: {suspend: true}")
		s.wait("job/work", tells("Suspended", "True", "JobSuspended"), tallies("active=0 terminating=0 succeeded=1"), tracked)
		s.waitPods(1)
	}},
	{"job/the template's scheduling changes while suspended", func(s *script) {
		s.create(job("work", "spec: {suspend: true}"))
		s.wait("job/work", tells("Suspended", "True", ""))
		s.patch("job/work", "spec: {template: {metadata: {labels: {queue: fast}}}}")
		s.patch("job/work", "spec: {suspend: false}")
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/work", finished(1), tracked)
	}},
	{"job/ttl after finished", func(s *script) {
		s.create(job("work", "spec: {ttlSecondsAfterFinished: 2}"))
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/work", finished(1))
		s.gone("job/work")
		s.waitPods(0)
	}},
	{"job/ttl zero after failed", func(s *script) {
		s.create(job("work", "spec: {ttlSecondsAfterFinished: 0, backoffLimit: 0}"))
		s.exit(1, s.waitPods(1, started)...)
		s.gone("job/work")
		s.waitPods(0)
	}},
	{"job/delete", func(s *script) {
		s.create(job("work", "spec: {completions: 2, parallelism: 2}"))
		s.exit(0, s.waitPods(2, started)[0])
		s.wait("job/work", tallies("succeeded=1"))
		s.deleteGone("job/work", background)
		s.waitPods(0)
	}},
	{"job/delete, orphaning", func(s *script) {
		s.create(job("work"))
		s.waitPods(1, started)
		s.deleteGone("job/work", orphan)
		s.waitPods(1, started, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 && len(p.Finalizers) <= 1 })
	}},
	{"job/indexed", func(s *script) {
		s.always("no index twice", onePerIndex)
		s.create(job("work", "spec: {completions: 3, parallelism: 3}", indexed))
		s.exit(0, s.waitPods(3, started)...)
		s.wait("job/work", finished(3), where("status.completedIndexes", "0-2"), tracked)
	}},
	{"job/indexed, in the order of indexes", func(s *script) {
		s.always("no index twice", onePerIndex)
		s.always("never above parallelism", atMost(2, active))
		s.create(job("work", "spec: {completions: 5, parallelism: 2}", indexed))
		s.exit(0, s.ofIndex(1))
		s.waitPods(1, index("2"), started)
		s.wait("job/work", where("status.completedIndexes", "1"), tallies("active=2 ready=2"), tracked)
	}},
	{"job/indexed, an index fails and is repeated", func(s *script) {
		s.always("no index twice", onePerIndex)
		s.create(job("work", "spec: {completions: 2, parallelism: 2, backoffLimit: 3}", indexed))
		s.exit(1, s.ofIndex(0))
		s.exit(0, s.ofIndex(1))
		s.wait("job/work", tallies("failed=1 succeeded=1"))
		s.exit(0, s.ofIndex(0))
		s.wait("job/work", finished(2), tallies("failed=1"), tracked)
	}},
	{"job/indexed, completions grow", func(s *script) {
		s.always("no index twice", onePerIndex)
		s.create(job("work", "spec: {completions: 2, parallelism: 2}", indexed))
		s.waitPods(2, started)
		s.patch("job/work", "spec: {completions: 4, parallelism: 4}")
		s.exit(0, s.waitPods(4, started)...)
		s.wait("job/work", finished(4), where("status.completedIndexes", "0-3"), tracked)
	}},
	{"job/indexed, completions shrink", func(s *script) {
		s.create(job("work", "spec: {completions: 4, parallelism: 4}", indexed))
		s.waitPods(4, started)
		s.exit(0, s.ofIndex(3))
		s.wait("job/work", tallies("succeeded=1"))
		s.patch("job/work", "spec: {completions: 2, parallelism: 2}")
		s.waitPods(2, active)
		s.exit(0, s.ofIndex(0), s.ofIndex(1))
		s.wait("job/work", finished(2), where("status.completedIndexes", "0,1"), tracked)
	}},
	{"job/manual selector", func(s *script) {
		s.create(job("work", "spec: {manualSelector: true, selector: {matchLabels: {app: work}}}"))
		s.exit(0, s.waitPods(1, started)...)
		s.wait("job/work", finished(1), tracked)
	}},
	{"job/managed by another controller", func(s *script) {
		s.create(job("work", "spec: {managedBy: example.com/other}"))
		s.waitPods(0)
	}},
}
