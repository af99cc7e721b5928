// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

const budgetRef = "poddisruptionbudget/guard"

var budgetScenarios = []scenario{
	{"poddisruptionbudget/minAvailable", func(s *script) {
		s.deploy(3)
		s.create(budget("guard", "web", "spec: {minAvailable: 2}"))
		s.wait(budgetRef, has("currentHealthy=3 desiredHealthy=2 expectedPods=3 disruptionsAllowed=1"))
	}},
	{"poddisruptionbudget/minAvailable in percent", func(s *script) {
		s.deploy(5)
		s.create(budget("guard", "web", "spec: {minAvailable: 50%}"))
		s.wait(budgetRef, has("currentHealthy=5 desiredHealthy=3 expectedPods=5 disruptionsAllowed=2"))
	}},
	{"poddisruptionbudget/maxUnavailable", func(s *script) {
		s.deploy(3)
		s.create(budget("guard", "web", "spec: {maxUnavailable: 1}"))
		s.wait(budgetRef, has("currentHealthy=3 desiredHealthy=2 expectedPods=3 disruptionsAllowed=1"))
	}},
	{"poddisruptionbudget/maxUnavailable in percent", func(s *script) {
		s.deploy(4)
		s.create(budget("guard", "web", "spec: {maxUnavailable: 30%}"))
		s.wait(budgetRef, has("currentHealthy=4 desiredHealthy=2 expectedPods=4 disruptionsAllowed=2"))
	}},
	{"poddisruptionbudget/no pods", func(s *script) {
		s.create(budget("guard", "web", "spec: {minAvailable: 1}"))
		s.wait(budgetRef, observed, tells("DisruptionAllowed", "False", "InsufficientPods"))
	}},
	{"poddisruptionbudget/too few pods", func(s *script) {
		s.deploy(2)
		s.create(budget("guard", "web", "spec: {minAvailable: 2}"))
		s.wait(budgetRef, has("currentHealthy=2 desiredHealthy=2 disruptionsAllowed=0"), tells("DisruptionAllowed", "False", "InsufficientPods"))
	}},
	{"poddisruptionbudget/a pod becomes unready", func(s *script) {
		s.deploy(3)
		s.create(budget("guard", "web", "spec: {minAvailable: 2}"))
		s.wait(budgetRef, has("disruptionsAllowed=1"))
		s.unready(s.waitPods(3, healthy)[0])
		s.wait(budgetRef, has("currentHealthy=2 disruptionsAllowed=0"), tells("DisruptionAllowed", "False", "InsufficientPods"))
	}},
	{"poddisruptionbudget/scaled", func(s *script) {
		s.deploy(2)
		s.create(budget("guard", "web", "spec: {maxUnavailable: 1}"))
		s.wait(budgetRef, has("expectedPods=2 disruptionsAllowed=1"))
		s.scale("deployment/web", 5)
		s.wait("deployment/web", complete(5))
		s.wait(budgetRef, has("expectedPods=5 desiredHealthy=4 currentHealthy=5 disruptionsAllowed=1"))
	}},
	{"poddisruptionbudget/of a StatefulSet", func(s *script) {
		s.set(3)
		s.create(budget("guard", "db", "spec: {maxUnavailable: 1}"))
		s.wait(budgetRef, has("expectedPods=3 desiredHealthy=2 currentHealthy=3 disruptionsAllowed=1"))
	}},
	{"poddisruptionbudget/of bare pods", func(s *script) {
		s.create(barePod("one", "metadata: {labels: {app: bare}}"))
		s.create(barePod("two", "metadata: {labels: {app: bare}}"))
		s.waitPods(2, healthy)
		s.create(budget("guard", "bare", "spec: {minAvailable: 1}"))
		s.wait(budgetRef, has("expectedPods=2 desiredHealthy=1 currentHealthy=2 disruptionsAllowed=1"))
	}},
	{"poddisruptionbudget/of pods without a scale", func(s *script) {
		s.create(barePod("one", "metadata: {labels: {app: bare}}"))
		s.waitPods(1, healthy)
		s.create(budget("guard", "bare", "spec: {maxUnavailable: 1}"))
		s.wait(budgetRef, observed)
	}},
	{"poddisruptionbudget/of a Job's pods", func(s *script) {
		s.create(job("work", "spec: {completions: 2, parallelism: 2}"))
		s.waitPods(2, started)
		s.create(budget("guard", "work", "spec: {minAvailable: 1}"))
		s.wait(budgetRef, has("expectedPods=2 currentHealthy=2 disruptionsAllowed=1"))
	}},
	{"poddisruptionbudget/changed", func(s *script) {
		s.deploy(3)
		s.create(budget("guard", "web", "spec: {minAvailable: 3}"))
		s.wait(budgetRef, has("desiredHealthy=3 disruptionsAllowed=0"))
		s.patch(budgetRef, "spec: {minAvailable: 1}")
		s.wait(budgetRef, has("desiredHealthy=1 disruptionsAllowed=2"), tells("DisruptionAllowed", "True", "SufficientPods"))
	}},
	{"poddisruptionbudget/an empty selector", func(s *script) {
		s.create(barePod("one"))
		s.create(barePod("two", "metadata: {labels: {app: other}}"))
		s.waitPods(2, healthy)
		s.create(budget("guard", "web", "spec: {minAvailable: 1, selector: {matchLabels: null}}"))
		s.wait(budgetRef, has("expectedPods=2 disruptionsAllowed=1"))
	}},
}
