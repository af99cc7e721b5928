// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import corev1 "k8s.io/api/core/v1"

const (
	failJobOn42 = `spec: {podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: main, operator: In, values: [42]}}]}}`
	ignoreOn42  = `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [42]}}]}}`
	countOn42   = `spec: {podFailurePolicy: {rules: [{action: Count, onExitCodes: {operator: In, values: [42]}}, {action: FailJob, onExitCodes: {operator: NotIn, values: [42]}}]}}`
	ignoreEvict = `spec: {podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}]}}`
	perIndex    = "spec: {completionMode: Indexed, backoffLimitPerIndex: 0}"
)

var jobPolicyScenarios = []scenario{
	{"job/failure policy fails the job", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 6, completions: 2, parallelism: 2}", failJobOn42))
		s.exit(42, s.waitPods(2, started)[0])
		s.wait("job/work", failed("PodFailurePolicy"), tallies("failed=2"), tracked)
	}},
	{"job/failure policy doesn't match", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0}", failJobOn42))
		s.exit(1, s.waitPods(1, started)...)
		s.wait("job/work", failed("BackoffLimitExceeded"), tracked)
	}},
	{"job/failure policy ignores", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0}", ignoreOn42))
		old := s.waitPods(1, started)[0]
		s.exit(42, old)
		s.exit(0, s.waitPods(1, started, func(p *corev1.Pod) bool { return p.UID != old.UID })...)
		s.wait("job/work", finished(1), tallies("failed=0"), tracked)
	}},
	{"job/failure policy counts", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0}", countOn42))
		s.exit(42, s.waitPods(1, started)...)
		s.wait("job/work", failed("BackoffLimitExceeded"), tallies("failed=1"), tracked)
	}},
	{"job/failure policy ignores a disruption", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0}", ignoreEvict))
		old := s.waitPods(1, started)[0]
		s.update([]*corev1.Pod{old}, func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: now()})
			finish(p, 137)
		})
		s.exit(0, s.waitPods(1, started, func(p *corev1.Pod) bool { return p.UID != old.UID })...)
		s.wait("job/work", finished(1), tallies("failed=0"), tracked)
	}},
	{"job/failure policy fails an index", func(s *script) {
		s.create(job("work", "spec: {completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 3}",
			"spec: {podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [42]}}]}}"))
		s.exit(42, s.ofIndex(0))
		s.exit(0, s.ofIndex(1))
		s.wait("job/work", failed("FailedIndexes"), where("status.failedIndexes", "0"), where("status.completedIndexes", "1"), tracked)
	}},
	{"job/backoff limit per index", func(s *script) {
		s.always("no index twice", onePerIndex)
		s.create(job("work", "spec: {completions: 3, parallelism: 3}", perIndex))
		s.exit(1, s.ofIndex(1))
		s.exit(0, s.ofIndex(0), s.ofIndex(2))
		s.wait("job/work", failed("FailedIndexes"), where("status.failedIndexes", "1"), where("status.completedIndexes", "0,2"), tracked)
	}},
	{"job/backoff limit per index, repeated once", func(s *script) {
		s.always("no index twice", onePerIndex)
		s.create(job("work", "spec: {completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 1}"))
		s.exit(1, s.ofIndex(0))
		s.exit(0, s.ofIndex(1))
		s.wait("job/work", tallies("failed=1 succeeded=1"))
		s.exit(0, s.ofIndex(0))
		s.wait("job/work", finished(2), tallies("failed=1"), tracked)
	}},
	{"job/max failed indexes", func(s *script) {
		s.create(job("work", "spec: {completions: 4, parallelism: 4, maxFailedIndexes: 1}", perIndex))
		s.waitPods(4, started)
		s.exit(1, s.ofIndex(0))
		s.wait("job/work", where("status.failedIndexes", "0"))
		s.exit(1, s.ofIndex(1))
		s.wait("job/work", failed("MaxFailedIndexesExceeded"), tracked)
	}},
	{"job/success policy by indexes", func(s *script) {
		s.create(job("work", "spec: {completions: 3, parallelism: 3, successPolicy: {rules: [{succeededIndexes: '1'}]}}", indexed))
		s.waitPods(3, started)
		s.exit(0, s.ofIndex(1))
		s.wait("job/work", tells("SuccessCriteriaMet", "True", "SuccessPolicy"), tells("Complete", "True", "SuccessPolicy"), tallies("active=0 succeeded=1"), tracked)
	}},
	{"job/success policy by count", func(s *script) {
		s.create(job("work", "spec: {completions: 4, parallelism: 4, successPolicy: {rules: [{succeededIndexes: '0-2', succeededCount: 2}]}}", indexed))
		s.waitPods(4, started)
		s.exit(0, s.ofIndex(3))
		s.wait("job/work", tallies("succeeded=1"))
		s.exit(0, s.ofIndex(0), s.ofIndex(2))
		s.wait("job/work", tells("Complete", "True", "SuccessPolicy"), tallies("active=0 succeeded=3"), tracked)
	}},
	{"job/replacement waits until the pod has failed", func(s *script) {
		s.create(job("work", "spec: {podReplacementPolicy: Failed, template: {metadata: {annotations: {oracle/linger: 'yes'}}}}"))
		s.always("never two", atMost(1, func(p *corev1.Pod) bool { return !isOver(p) }))
		old := s.waitPods(1, started)[0]
		s.deletePods(old)
		s.wait("job/work", tallies("terminating=1 active=0"))
		s.waitPods(1)
		s.end(old)
		s.waitPods(1, started, func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.wait("job/work", tallies("terminating=0 active=1 failed=1"), tracked)
	}},
	{"job/replacement at once when the pod is terminating", func(s *script) {
		s.create(job("work", "spec: {podReplacementPolicy: TerminatingOrFailed, template: {metadata: {annotations: {oracle/linger: 'yes'}}}}"))
		old := s.waitPods(1, started)[0]
		s.deletePods(old)
		s.waitPods(1, started, func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.wait("job/work", tallies("terminating=1 active=1"))
	}},
	{"job/the end waits until pods have ended", func(s *script) {
		s.create(job("work", "spec: {backoffLimit: 0, completions: 2, parallelism: 2, template: {metadata: {annotations: {oracle/linger: 'yes'}}}}"))
		pods := s.waitPods(2, started)
		s.exit(1, pods[0])
		s.wait("job/work", tells("FailureTarget", "True", "BackoffLimitExceeded"), tallies("terminating=1 active=0"))
		s.end(s.waitPods(1, deleted)...)
		s.wait("job/work", failed("BackoffLimitExceeded"), tallies("failed=2 terminating=0"), tracked)
	}},
	{"job/pods can't be created", func(s *script) {
		s.create(job("work", "spec: {template: {metadata: {labels: {oracle/deny: 'yes'}}}}"))
		s.wait("job/work", func(o object) string {
			if o.at("status.startTime") == nil {
				return "it hasn't started"
			}
			return ""
		})
	}},
}
