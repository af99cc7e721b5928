// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// onNodes holds when a DaemonSet's pods are ready on that many nodes, all of the newest revision.
func onNodes(n int) condition {
	return has(fmt.Sprintf("desiredNumberScheduled=%d currentNumberScheduled=%[1]d numberReady=%[1]d numberAvailable=%[1]d updatedNumberScheduled=%[1]d numberMisscheduled=0", n))
}

// daemons makes nodes and a DaemonSet on them.
func (s *script) daemons(nodes int, changes ...string) {
	for i := range nodes {
		s.node(fmt.Sprintf("n%d", i), "")
	}
	s.create(daemonSet("agent", changes...))
	s.wait("daemonset/agent", onNodes(nodes))
}

func daemonStrategy(surge, unavailable string) string {
	return fmt.Sprintf("spec: {updateStrategy: {rollingUpdate: {maxSurge: %s, maxUnavailable: %s}}}", surge, unavailable)
}

var daemonSetScenarios = []scenario{
	{"daemonset/create", func(s *script) {
		s.always("one on each node", onePerNode)
		s.daemons(3)
	}},
	{"daemonset/no matching node", func(s *script) {
		s.node("n0", "")
		s.create(daemonSet("agent", "spec: {template: {spec: {nodeSelector: {disk: ssd}}}}"))
		s.wait("daemonset/agent", onNodes(0))
	}},
	{"daemonset/node selector", func(s *script) {
		s.node("n0", "metadata: {labels: {disk: ssd}}")
		s.node("n1", "")
		s.create(daemonSet("agent", "spec: {template: {spec: {nodeSelector: {disk: ssd}}}}"))
		s.wait("daemonset/agent", onNodes(1))
	}},
	{"daemonset/node affinity", func(s *script) {
		s.node("n0", "metadata: {labels: {zone: a}}")
		s.node("n1", "metadata: {labels: {zone: b}}")
		s.create(daemonSet("agent", `spec: {template: {spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution:
  {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: NotIn, values: [b]}]}]}}}}}}`))
		s.wait("daemonset/agent", onNodes(1))
	}},
	{"daemonset/a node is labelled", func(s *script) {
		s.node("n0", "metadata: {labels: {disk: ssd}}")
		s.node("n1", "")
		s.create(daemonSet("agent", "spec: {template: {spec: {nodeSelector: {disk: ssd}}}}"))
		s.wait("daemonset/agent", onNodes(1))
		s.patchNode("n1", "metadata: {labels: {disk: ssd}}")
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/a node loses its label", func(s *script) {
		s.node("n0", "metadata: {labels: {disk: ssd}}")
		s.node("n1", "metadata: {labels: {disk: ssd}}")
		s.create(daemonSet("agent", "spec: {template: {spec: {nodeSelector: {disk: ssd}}}}"))
		s.wait("daemonset/agent", onNodes(2))
		s.patchNode("n1", "metadata: {labels: {disk: null}}")
		s.wait("daemonset/agent", onNodes(1))
		s.waitPods(1)
	}},
	{"daemonset/a node comes", func(s *script) {
		s.daemons(1)
		s.node("late", "")
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/a tainted node", func(s *script) {
		s.node("n0", "")
		s.node("n1", "spec: {taints: [{key: dedicated, value: db, effect: NoSchedule}]}")
		s.create(daemonSet("agent"))
		s.wait("daemonset/agent", onNodes(1))
	}},
	{"daemonset/a tainted node, tolerated", func(s *script) {
		s.node("n0", "spec: {taints: [{key: dedicated, value: db, effect: NoSchedule}]}")
		s.create(daemonSet("agent", "spec: {template: {spec: {tolerations: [{key: dedicated, operator: Exists}]}}}"))
		s.wait("daemonset/agent", onNodes(1))
	}},
	{"daemonset/a node is tainted, pods stay", func(s *script) {
		s.daemons(2)
		s.patchNode("n1", "spec: {taints: [{key: dedicated, value: db, effect: NoSchedule}]}")
		// Upstream counts anew only when something else happens to the DaemonSet.
		s.nudge("daemonset/agent", has("desiredNumberScheduled=1 currentNumberScheduled=1 numberMisscheduled=1"))
	}},
	{"daemonset/a node is tainted, pods go", func(s *script) {
		s.daemons(2)
		s.patchNode("n1", "spec: {taints: [{key: dedicated, value: db, effect: NoExecute}]}")
		s.wait("daemonset/agent", onNodes(1))
		s.waitPods(1)
	}},
	{"daemonset/a cordoned node", func(s *script) {
		s.node("n0", "spec: {unschedulable: true}")
		s.node("n1", "")
		s.create(daemonSet("agent"))
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/a node is cordoned", func(s *script) {
		s.daemons(2)
		s.patchNode("n0", "spec: {unschedulable: true}")
		s.setImage("daemonset/agent", "app:2")
		s.waitPods(2, running("app:2"), healthy)
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/a pod is deleted", func(s *script) {
		s.daemons(2)
		old := s.waitPods(1, s.on("n0"))[0]
		s.deletePods(old)
		s.waitPods(1, s.on("n0"), healthy, func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/a pod fails", func(s *script) {
		s.daemons(2)
		old := s.waitPods(1, s.on("n0"))[0]
		s.exit(1, old)
		s.waitPods(1, s.on("n0"), healthy, func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.waitPods(2)
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/a pod becomes unready", func(s *script) {
		s.daemons(2)
		s.unready(s.waitPods(1, s.on("n1"))...)
		s.wait("daemonset/agent", has("numberReady=1 numberAvailable=1 numberUnavailable=1"))
	}},
	{"daemonset/minReadySeconds", func(s *script) {
		s.node("n0", "")
		s.create(daemonSet("agent", untilPatched))
		s.wait("daemonset/agent", has("numberReady=1 numberAvailable=0"))
		s.patch("daemonset/agent", "spec: {minReadySeconds: 2}")
		s.wait("daemonset/agent", onNodes(1))
	}},
	{"daemonset/rolling update", func(s *script) {
		s.daemons(3)
		s.always("one on each node", onePerNode)
		s.always("one at a time", atLeast(2, healthy))
		s.setImage("daemonset/agent", "app:2")
		s.waitPods(3, running("app:2"), healthy)
		s.wait("daemonset/agent", onNodes(3))
	}},
	{"daemonset/rolling update, two at a time", func(s *script) {
		s.daemons(4, daemonStrategy("0", "2"))
		s.always("one on each node", onePerNode)
		s.always("two at a time", atLeast(2, healthy))
		s.setImage("daemonset/agent", "app:2")
		s.waitPods(4, running("app:2"), healthy)
		s.wait("daemonset/agent", onNodes(4))
	}},
	{"daemonset/rolling update waits for a slow pod", func(s *script) {
		s.anyNode = true
		s.daemons(3)
		s.always("one at a time", atLeast(2, healthy))
		s.setImage("daemonset/agent", "slow:2")
		s.waitPods(1, running("slow:2"), started)
		s.wait("daemonset/agent", has("updatedNumberScheduled=1 numberReady=2 numberUnavailable=1"))
	}},
	{"daemonset/rolling update with surge", func(s *script) {
		s.daemons(3, daemonStrategy("1", "0"))
		s.always("never without a pod", atLeast(3, healthy))
		s.always("never above maxSurge", atMost(4, active))
		s.setImage("daemonset/agent", "app:2")
		s.waitPods(3, running("app:2"), healthy)
		s.wait("daemonset/agent", onNodes(3))
		s.waitPods(3)
	}},
	{"daemonset/rolling update with surge waits for a slow pod", func(s *script) {
		s.anyNode = true
		s.daemons(2, daemonStrategy("1", "0"))
		s.always("never without a pod", atLeast(2, healthy))
		s.later() // of two pods on a node, the older one is counted
		s.setImage("daemonset/agent", "slow:2")
		s.waitPods(1, running("slow:2"), started)
		s.waitPods(3)
		s.wait("daemonset/agent", observed)
	}},
	{"daemonset/OnDelete", func(s *script) {
		s.daemons(2, "spec: {updateStrategy: {type: OnDelete, rollingUpdate: null}}")
		s.setImage("daemonset/agent", "app:2")
		s.wait("daemonset/agent", observed, has("updatedNumberScheduled=0 numberReady=2"))
		s.deletePods(s.waitPods(1, s.on("n1"))...)
		s.waitPods(1, s.on("n1"), running("app:2"), healthy)
		s.wait("daemonset/agent", has("updatedNumberScheduled=1 numberReady=2"))
	}},
	{"daemonset/undo", func(s *script) {
		s.daemons(2)
		s.setImage("daemonset/agent", "app:2")
		s.waitPods(2, running("app:2"), healthy)
		s.wait("daemonset/agent", onNodes(2))
		s.undo("daemonset/agent", 1)
		s.waitPods(2, running("app:1"), healthy)
		s.wait("daemonset/agent", onNodes(2))
	}},
	{"daemonset/history limit", func(s *script) {
		s.daemons(1, "spec: {revisionHistoryLimit: 1}")
		for n := 2; n <= 4; n++ {
			name := fmt.Sprintf("app:%d", n)
			s.setImage("daemonset/agent", name)
			s.waitPods(1, running(name), healthy)
			s.wait("daemonset/agent", onNodes(1))
		}
		s.await("two revisions are left", func() string { return lengthIs(s.list("controllerrevision"), 2) })
	}},
	{"daemonset/adopt a pod", func(s *script) {
		s.daemons(1)
		s.deleteGone("daemonset/agent", orphan)
		old := s.waitPods(1, healthy, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })[0]
		s.create(daemonSet("agent"))
		s.wait("daemonset/agent", onNodes(1))
		s.waitPods(1, named(old.Name), healthy, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 1 })
	}},
	{"daemonset/release a pod by its label", func(s *script) {
		s.daemons(1)
		s.label(s.waitPods(1)[0], "app", "released")
		s.waitPods(1, of("agent"), healthy)
		s.waitPods(2)
		s.wait("daemonset/agent", onNodes(1))
	}},
	{"daemonset/delete", func(s *script) {
		s.daemons(2)
		s.deleteGone("daemonset/agent", background)
		s.waitPods(0)
		s.await("the revisions are gone", func() string { return none(s.list("controllerrevision")) })
	}},
}
