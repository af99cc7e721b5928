// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// rollBack is kubectl rollout undo: the template of an earlier revision, without the hash, becomes the Deployment's.
func (s *script) rollBack(name string, to int) {
	s.begin("roll deployment/%s back to %d", name, to)
	for _, rs := range s.list("replicaset") {
		if rs.GetAnnotations()["deployment.kubernetes.io/revision"] != fmt.Sprint(to) {
			continue
		}
		raw, err := json.Marshal(rs.at("spec.template"))
		must(err)
		template := map[string]any{}
		must(json.Unmarshal(raw, &template))
		delete(template["metadata"].(map[string]any)["labels"].(map[string]any), "pod-template-hash")
		s.operate("deployment/"+name, operation{"replace", "/spec/template", template})
		return
	}
	s.fail("there is no revision %d", to)
}

// bounded holds a rollout to its bounds.
func (s *script) bounded(least, most int) {
	s.always("never below maxUnavailable", atLeast(least, healthy))
	s.always("never above maxSurge", atMost(most, active))
}

func strategy(surge, unavailable string) string {
	return fmt.Sprintf("spec: {strategy: {rollingUpdate: {maxSurge: %s, maxUnavailable: %s}}}", surge, unavailable)
}

var rolloutScenarios = []scenario{
	{"deployment/rolling update", func(s *script) {
		s.deploy(3)
		s.bounded(3, 4)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(3), revision(2))
	}},
	{"deployment/rolling update without surge", func(s *script) {
		s.deploy(3, strategy("0", "1"))
		s.bounded(2, 3)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(3), revision(2))
	}},
	{"deployment/rolling update in percent", func(s *script) {
		s.deploy(6, strategy("50%", "34%"))
		s.bounded(4, 9)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(6), revision(2))
	}},
	{"deployment/rolling update waits for slow pods", func(s *script) {
		s.deploy(3, strategy("1", "1"))
		s.bounded(2, 4)
		s.setImage("deployment/web", "slow:2")
		s.wait("deployment/web", has("replicas=4 updatedReplicas=2 readyReplicas=2 terminatingReplicas=0"))
	}},
	{"deployment/rolling update goes on as slow pods become ready", func(s *script) {
		s.deploy(3, strategy("1", "0"))
		s.bounded(3, 4)
		s.setImage("deployment/web", "slow:2")
		for n := range 3 {
			s.wait("deployment/web", has(fmt.Sprintf("replicas=4 updatedReplicas=%d", n+1)))
			s.ready(s.waitPods(1, running("slow:2"), started, func(p *corev1.Pod) bool { return !isReady(p) })...)
		}
		s.wait("deployment/web", complete(3))
	}},
	{"deployment/rolling update with minReadySeconds", func(s *script) {
		s.deploy(2, "spec: {minReadySeconds: 1}", strategy("1", "0"))
		s.bounded(2, 3)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(2), revision(2))
	}},
	{"deployment/image and size change at once", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {replicas: 4, template: {spec: {containers: [{name: main, image: 'app:2'}]}}}")
		s.wait("deployment/web", complete(4), revision(2))
	}},
	{"deployment/labels of the template change", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {template: {metadata: {labels: {tier: front}, annotations: {note: new}}}}")
		s.wait("deployment/web", complete(2), revision(2))
	}},
	{"deployment/recreate", func(s *script) {
		s.deploy(3, "spec: {strategy: {type: Recreate, rollingUpdate: null}}")
		s.always("one revision at a time", oneImage)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(3), revision(2))
	}},
	{"deployment/recreate waits for the last old pod", func(s *script) {
		s.deploy(2, "spec: {strategy: {type: Recreate, rollingUpdate: null}, template: {metadata: {annotations: {oracle/linger: 'yes'}}}}")
		s.always("one revision at a time", oneImage)
		s.setImage("deployment/web", "app:2")
		pods := s.waitPods(2, deleted)
		s.wait("deployment/web", has("replicas=0"))
		s.end(pods[0])
		s.gone("pod/" + pods[0].Name)
		s.waitPods(0, alive)
		s.end(pods[1])
		s.wait("deployment/web", complete(2), revision(2))
	}},
	{"deployment/bad image misses the deadline", func(s *script) {
		s.deploy(3, "spec: {progressDeadlineSeconds: 3}")
		s.bounded(3, 4)
		s.setImage("deployment/web", "bad:2")
		s.wait("deployment/web", tells("Progressing", "False", "ProgressDeadlineExceeded"))
	}},
	{"deployment/bad image from the start", func(s *script) {
		s.create(deployment("web", image("bad:1"), "spec: {progressDeadlineSeconds: 2}"))
		s.wait("deployment/web", has("replicas=3 unavailableReplicas=3"), tells("Progressing", "False", "ProgressDeadlineExceeded"))
	}},
	{"deployment/crashing pods", func(s *script) {
		s.create(deployment("web", image("crash:1"), "spec: {progressDeadlineSeconds: 2}"))
		s.wait("deployment/web", has("replicas=3 unavailableReplicas=3"), tells("Progressing", "False", "ProgressDeadlineExceeded"))
	}},
	{"deployment/bad image, then a good one", func(s *script) {
		s.deploy(3, "spec: {progressDeadlineSeconds: 2}")
		s.always("never below maxUnavailable", atLeast(3, healthy))
		s.setImage("deployment/web", "bad:2")
		s.wait("deployment/web", tells("Progressing", "False", "ProgressDeadlineExceeded"))
		s.setImage("deployment/web", "app:3")
		s.wait("deployment/web", complete(3), revision(3))
	}},
	{"deployment/bad image, then rolled back", func(s *script) {
		s.deploy(3)
		s.bounded(3, 4)
		s.setImage("deployment/web", "bad:2")
		s.wait("deployment/web", has("replicas=4 updatedReplicas=1"), revision(2))
		s.rollBack("web", 1)
		s.wait("deployment/web", complete(3), revision(3))
	}},
	{"deployment/rolled back to the first of three", func(s *script) {
		s.deploy(2)
		for n := 2; n <= 3; n++ {
			s.setImage("deployment/web", fmt.Sprintf("app:%d", n))
			s.wait("deployment/web", complete(2), revision(n))
		}
		s.rollBack("web", 1)
		s.wait("deployment/web", complete(2), revision(4))
	}},
	{"deployment/rolled back there and back", func(s *script) {
		s.deploy(2)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(2), revision(2))
		s.rollBack("web", 1)
		s.wait("deployment/web", complete(2), revision(3))
		s.rollBack("web", 2)
		s.wait("deployment/web", complete(2), revision(4))
	}},
	{"deployment/rolled back by the annotation", func(s *script) {
		s.deploy(2)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(2), revision(2))
		s.patch("deployment/web", "metadata: {annotations: {deprecated.deployment.rollback.to: '0'}}")
		s.wait("deployment/web", complete(2), revision(3))
	}},
	{"deployment/history limit", func(s *script) {
		s.deploy(1, "spec: {revisionHistoryLimit: 1}")
		for n := 2; n <= 4; n++ {
			s.setImage("deployment/web", fmt.Sprintf("app:%d", n))
			s.wait("deployment/web", complete(1), revision(n))
		}
		s.await("two ReplicaSets are left", func() string { return lengthIs(s.list("replicaset"), 2) })
	}},
	{"deployment/history limit zero", func(s *script) {
		s.deploy(1, "spec: {revisionHistoryLimit: 0}")
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(1), revision(2))
		s.await("one ReplicaSet is left", func() string { return lengthIs(s.list("replicaset"), 1) })
	}},
	{"deployment/paused, nothing rolls out", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {paused: true}")
		s.wait("deployment/web", observed, tells("Progressing", "Unknown", "DeploymentPaused"))
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", observed)
	}},
	{"deployment/paused, then resumed", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {paused: true}")
		s.wait("deployment/web", observed, tells("Progressing", "Unknown", "DeploymentPaused"))
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", observed)
		s.bounded(2, 3)
		s.patch("deployment/web", "spec: {paused: false}")
		s.wait("deployment/web", complete(2), revision(2))
	}},
	{"deployment/created paused", func(s *script) {
		s.create(deployment("web", "spec: {paused: true}"))
		s.wait("deployment/web", observed, tells("Progressing", "Unknown", "DeploymentPaused"))
	}},
	{"deployment/scaled while paused", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {paused: true}")
		s.wait("deployment/web", tells("Progressing", "Unknown", "DeploymentPaused"))
		s.scale("deployment/web", 4)
		s.wait("deployment/web", rolledOut(4))
	}},
	{"deployment/paused in the middle of a rollout", func(s *script) {
		s.deploy(3, strategy("1", "1"))
		s.setImage("deployment/web", "slow:2")
		s.wait("deployment/web", has("replicas=4 updatedReplicas=2 readyReplicas=2 terminatingReplicas=0"))
		s.patch("deployment/web", "spec: {paused: true}")
		s.wait("deployment/web", tells("Progressing", "Unknown", "DeploymentPaused"))
		s.ready(s.waitPods(2, running("slow:2"), alive)...)
		s.wait("deployment/web", has("replicas=4 updatedReplicas=2 readyReplicas=4"))
	}},
	{"deployment/scaled up in the middle of a rollout", func(s *script) {
		s.deploy(4, strategy("2", "0"))
		s.setImage("deployment/web", "slow:2")
		s.wait("deployment/web", has("replicas=6 updatedReplicas=2 readyReplicas=4"))
		s.waitPods(2, running("slow:2"), started)
		s.scale("deployment/web", 10)
		s.wait("deployment/web", has("replicas=12"))
		s.waitPods(12, started)
	}},
	{"deployment/scaled down in the middle of a rollout", func(s *script) {
		s.deploy(8, strategy("2", "0"))
		s.setImage("deployment/web", "slow:2")
		s.wait("deployment/web", has("replicas=10 updatedReplicas=2 readyReplicas=8"))
		s.waitPods(2, running("slow:2"), started)
		s.scale("deployment/web", 4)
		s.wait("deployment/web", has("replicas=6 terminatingReplicas=0"))
	}},
	{"deployment/another image in the middle of a rollout", func(s *script) {
		s.deploy(3, strategy("1", "0"))
		s.bounded(3, 4)
		s.setImage("deployment/web", "slow:2")
		s.wait("deployment/web", has("replicas=4 updatedReplicas=1"))
		s.setImage("deployment/web", "app:3")
		s.wait("deployment/web", complete(3), revision(3))
	}},
	{"deployment/image there and back", func(s *script) {
		s.deploy(3)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(3), revision(2))
		s.setImage("deployment/web", "app:1")
		s.wait("deployment/web", complete(3), revision(3))
	}},
	{"deployment/strategy changes to Recreate", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {strategy: {type: Recreate, rollingUpdate: null}}")
		s.wait("deployment/web", complete(2))
		s.always("one revision at a time", oneImage)
		s.setImage("deployment/web", "app:2")
		s.wait("deployment/web", complete(2), revision(2))
	}},
}

func lengthIs(list []object, n int) string {
	if len(list) == n {
		return ""
	}
	return fmt.Sprintf("there are %d", len(list))
}
