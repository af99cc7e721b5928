// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// settled holds when a StatefulSet has that many pods, all ready, of one revision.
func settled(n int) condition {
	return func(o object) string {
		// An absent updateRevision would be equal to an absent currentRevision.
		if o.str("status.updateRevision") == "" || o.str("status.updateRevision") != o.str("status.currentRevision") {
			return "the revisions differ"
		}
		counters := fmt.Sprintf("replicas=%d readyReplicas=%[1]d availableReplicas=%[1]d currentReplicas=%[1]d updatedReplicas=%[1]d", n)
		return has(counters)(o)
	}
}

// undo is kubectl rollout undo for kinds with ControllerRevisions: the template of an earlier one becomes the object's.
func (s *script) undo(ref string, number int64) {
	s.begin("roll %s back to %d", ref, number)
	for _, r := range s.list("controllerrevision") {
		if r.num("revision") != number {
			continue
		}
		raw, err := json.Marshal(r.at("data.spec.template"))
		must(err)
		template := map[string]any{}
		must(json.Unmarshal(raw, &template))
		delete(template, "$patch")
		s.operate(ref, operation{"replace", "/spec/template", template})
		return
	}
	s.fail("there is no revision %d", number)
}

func (s *script) set(n int, changes ...string) {
	s.create(statefulSet("db", append([]string{fmt.Sprintf("spec: {replicas: %d}", n)}, changes...)...))
	s.wait("statefulset/db", settled(n))
}

const (
	parallel = "spec: {podManagementPolicy: Parallel}"
	onDelete = "spec: {updateStrategy: {type: OnDelete, rollingUpdate: null}}"
)

var statefulSetScenarios = []scenario{
	{"statefulset/create in order", func(s *script) {
		s.always("in order", inOrder(0))
		s.set(3)
	}},
	{"statefulset/create waits for a slow pod", func(s *script) {
		s.always("in order", inOrder(0))
		s.create(statefulSet("db", image("slow:1")))
		s.ready(s.waitPods(1, named("db-0"), started)...)
		s.waitPods(1, named("db-1"), started)
		s.wait("statefulset/db", has("replicas=2 readyReplicas=1"))
	}},
	{"statefulset/create in parallel", func(s *script) {
		s.create(statefulSet("db", image("slow:1"), parallel))
		s.waitPods(3, started)
		s.wait("statefulset/db", has("replicas=3 readyReplicas=0"))
	}},
	{"statefulset/start ordinal", func(s *script) {
		s.always("in order", inOrder(5))
		s.set(2, "spec: {ordinals: {start: 5}}")
	}},
	{"statefulset/start ordinal moves", func(s *script) {
		s.set(2)
		s.patch("statefulset/db", "spec: {ordinals: {start: 1}}")
		s.waitPods(0, named("db-0"))
		s.waitPods(1, named("db-2"), healthy)
		s.wait("statefulset/db", settled(2))
	}},
	{"statefulset/scale up and down", func(s *script) {
		s.always("in order", inOrder(0))
		s.set(1)
		s.scale("statefulset/db", 3)
		s.wait("statefulset/db", settled(3))
		s.scale("statefulset/db", 1)
		s.wait("statefulset/db", settled(1))
		s.waitPods(1)
	}},
	{"statefulset/scale down one at a time", func(s *script) {
		s.set(3, "spec: {template: {metadata: {annotations: {oracle/linger: 'yes'}}}}")
		s.always("one at a time", atMost(1, deleted))
		s.scale("statefulset/db", 0)
		s.end(s.waitPods(1, named("db-2"), deleted)...)
		s.end(s.waitPods(1, named("db-1"), deleted)...)
		s.waitPods(1, named("db-0"), deleted)
		s.waitPods(1)
	}},
	{"statefulset/scale down in parallel", func(s *script) {
		s.set(3, parallel, "spec: {template: {metadata: {annotations: {oracle/linger: 'yes'}}}}")
		s.scale("statefulset/db", 1)
		s.waitPods(2, deleted)
		s.waitPods(1, named("db-0"), healthy)
	}},
	{"statefulset/scale to zero", func(s *script) {
		s.set(2)
		s.scale("statefulset/db", 0)
		s.waitPods(0)
		s.wait("statefulset/db", has("replicas=0 readyReplicas=0"))
	}},
	{"statefulset/scale down stops at an unready pod", func(s *script) {
		s.set(3)
		s.unready(s.waitPods(1, named("db-0"))...)
		s.wait("statefulset/db", has("readyReplicas=2"))
		s.scale("statefulset/db", 1)
		s.wait("statefulset/db", observed)
	}},
	{"statefulset/a pod is deleted", func(s *script) {
		s.set(3)
		old := s.waitPods(1, named("db-1"))[0]
		s.deletePods(old)
		s.waitPods(1, named("db-1"), healthy, func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.wait("statefulset/db", settled(3))
	}},
	{"statefulset/a pod fails", func(s *script) {
		s.set(2)
		old := s.waitPods(1, named("db-0"))[0]
		s.exit(1, old)
		s.waitPods(1, named("db-0"), healthy, func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.wait("statefulset/db", settled(2))
	}},
	{"statefulset/minReadySeconds", func(s *script) {
		s.create(statefulSet("db", "spec: {replicas: 2}", untilPatched))
		s.wait("statefulset/db", has("replicas=1 readyReplicas=1 availableReplicas=0"))
		s.patch("statefulset/db", "spec: {minReadySeconds: 2}")
		s.wait("statefulset/db", settled(2))
	}},
	{"statefulset/rolling update", func(s *script) {
		s.set(3)
		s.always("one at a time", atLeast(2, healthy))
		s.setImage("statefulset/db", "app:2")
		s.waitPods(3, running("app:2"), healthy)
		s.wait("statefulset/db", settled(3))
	}},
	{"statefulset/rolling update in parallel", func(s *script) {
		s.set(3, parallel)
		s.always("one at a time", atLeast(2, healthy))
		s.setImage("statefulset/db", "app:2")
		s.waitPods(3, running("app:2"), healthy)
		s.wait("statefulset/db", settled(3))
	}},
	{"statefulset/rolling update from the last on", func(s *script) {
		s.set(3)
		s.setImage("statefulset/db", "slow:2")
		s.waitPods(1, named("db-2"), running("slow:2"), started)
		s.wait("statefulset/db", has("replicas=3 readyReplicas=2 updatedReplicas=1 currentReplicas=2"))
	}},
	{"statefulset/partition", func(s *script) {
		s.set(3, "spec: {updateStrategy: {rollingUpdate: {partition: 2}}}")
		s.setImage("statefulset/db", "app:2")
		s.waitPods(1, running("app:2"), healthy)
		s.wait("statefulset/db", has("readyReplicas=3 updatedReplicas=1 currentReplicas=2"))
	}},
	{"statefulset/partition, then all", func(s *script) {
		s.set(3, "spec: {updateStrategy: {rollingUpdate: {partition: 2}}}")
		s.setImage("statefulset/db", "app:2")
		s.wait("statefulset/db", has("readyReplicas=3 updatedReplicas=1 currentReplicas=2"))
		s.patch("statefulset/db", "spec: {updateStrategy: {rollingUpdate: {partition: 0}}}")
		s.waitPods(3, running("app:2"), healthy)
		s.wait("statefulset/db", settled(3))
	}},
	{"statefulset/a deleted pod below the partition keeps its revision", func(s *script) {
		s.set(2, "spec: {updateStrategy: {rollingUpdate: {partition: 1}}}")
		s.setImage("statefulset/db", "app:2")
		s.wait("statefulset/db", has("readyReplicas=2 updatedReplicas=1 currentReplicas=1"))
		old := s.waitPods(1, named("db-0"))[0]
		s.deletePods(old)
		s.waitPods(1, named("db-0"), healthy, running("app:1"), func(p *corev1.Pod) bool { return p.UID != old.UID })
		s.wait("statefulset/db", has("readyReplicas=2 updatedReplicas=1 currentReplicas=1"))
	}},
	{"statefulset/maxUnavailable", func(s *script) {
		s.set(4, "spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 2}}}")
		s.always("two at a time", atLeast(2, healthy))
		s.setImage("statefulset/db", "app:2")
		s.waitPods(4, running("app:2"), healthy)
		s.wait("statefulset/db", settled(4))
	}},
	{"statefulset/OnDelete", func(s *script) {
		s.set(2, onDelete)
		s.setImage("statefulset/db", "app:2")
		s.wait("statefulset/db", observed, has("readyReplicas=2"))
		old := s.waitPods(1, named("db-1"))[0]
		s.deletePods(old)
		s.waitPods(1, named("db-1"), healthy, running("app:2"))
		s.wait("statefulset/db", has("readyReplicas=2 updatedReplicas=1"))
	}},
	{"statefulset/undo", func(s *script) {
		s.set(2)
		s.setImage("statefulset/db", "app:2")
		s.waitPods(2, running("app:2"), healthy)
		s.wait("statefulset/db", settled(2))
		s.undo("statefulset/db", 1)
		s.waitPods(2, running("app:1"), healthy)
		s.wait("statefulset/db", settled(2))
	}},
	{"statefulset/history limit", func(s *script) {
		s.set(1, "spec: {revisionHistoryLimit: 1}")
		for n := 2; n <= 4; n++ {
			name := fmt.Sprintf("app:%d", n)
			s.setImage("statefulset/db", name)
			s.waitPods(1, running(name), healthy)
			s.wait("statefulset/db", settled(1))
		}
		s.await("two revisions are left", func() string { return lengthIs(s.list("controllerrevision"), 2) })
	}},
	{"statefulset/claims are made", func(s *script) {
		s.set(2, claims)
		s.await("there are two claims", func() string { return lengthIs(s.list("persistentvolumeclaim"), 2) })
	}},
	{"statefulset/claims stay", func(s *script) {
		s.set(2, claims)
		s.scale("statefulset/db", 1)
		s.wait("statefulset/db", settled(1))
		s.waitPods(1)
	}},
	{"statefulset/claims go when scaled down", func(s *script) {
		s.set(2, claims, "spec: {persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}}")
		s.scale("statefulset/db", 1)
		s.wait("statefulset/db", settled(1))
		s.gone("persistentvolumeclaim/data-db-1")
	}},
	{"statefulset/claims go when deleted", func(s *script) {
		s.set(2, claims, "spec: {persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Retain}}")
		s.await("the claims are owned", func() string {
			for _, c := range s.list("persistentvolumeclaim") {
				if len(c.GetOwnerReferences()) == 0 {
					return c.GetName() + " isn't"
				}
			}
			return lengthIs(s.list("persistentvolumeclaim"), 2)
		})
		s.deleteGone("statefulset/db", background)
		s.gone("persistentvolumeclaim/data-db-0")
		s.gone("persistentvolumeclaim/data-db-1")
		s.waitPods(0)
	}},
	{"statefulset/delete, orphaning, and adopt", func(s *script) {
		s.set(2)
		s.deleteGone("statefulset/db", orphan)
		s.waitPods(2, healthy, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
		s.create(statefulSet("db", "spec: {replicas: 2}"))
		s.wait("statefulset/db", settled(2))
		s.waitPods(2, healthy, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 1 })
	}},
	{"statefulset/delete in the foreground", func(s *script) {
		s.set(2)
		s.deleteGone("statefulset/db", foreground)
		s.waitPods(0)
	}},
	{"statefulset/release a pod by its label", func(s *script) {
		s.set(2)
		s.label(s.waitPods(1, named("db-1"))[0], "app", "released")
		s.waitPods(1, named("db-1"), func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
		s.wait("statefulset/db", has("replicas=1 readyReplicas=1"))
	}},
	{"statefulset/pods can't be created", func(s *script) {
		s.create(statefulSet("db", "spec: {replicas: 2, template: {metadata: {labels: {oracle/deny: 'yes'}}}}"))
		s.wait("statefulset/db", observed)
	}},
}
