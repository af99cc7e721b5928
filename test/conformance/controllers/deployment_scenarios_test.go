// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	background = metav1.DeletePropagationBackground
	foreground = metav1.DeletePropagationForeground
	orphan     = metav1.DeletePropagationOrphan
)

// complete holds when a Deployment's rollout of that many pods is done.
func complete(n int) condition {
	return func(o object) string {
		for _, c := range []condition{rolledOut(n), tells("Progressing", "True", "NewReplicaSetAvailable"), tells("Available", "True", "")} {
			if sentence := c(o); sentence != "" {
				return sentence
			}
		}
		return ""
	}
}

// revision holds when the Deployment carries that revision number.
func revision(n int) condition {
	return func(o object) string {
		if got := o.GetAnnotations()["deployment.kubernetes.io/revision"]; got != fmt.Sprint(n) {
			return fmt.Sprintf("revision is %q, not %d", got, n)
		}
		return ""
	}
}

// deploy makes a Deployment and waits until it is complete.
func (s *script) deploy(n int, changes ...string) {
	s.create(deployment("web", append([]string{fmt.Sprintf("spec: {replicas: %d}", n)}, changes...)...))
	s.wait("deployment/web", complete(n))
}

var deploymentScenarios = []scenario{
	{"deployment/create", func(s *script) {
		s.always("never above the size", atMost(3, active))
		s.deploy(3)
	}},
	{"deployment/create with many pods", func(s *script) {
		s.always("never above the size", atMost(20, active))
		s.deploy(20)
	}},
	{"deployment/create without replicas", func(s *script) {
		s.create(deployment("web", "spec: {replicas: null}"))
		s.wait("deployment/web", complete(1))
	}},
	{"deployment/create with zero replicas", func(s *script) {
		s.deploy(0)
	}},
	{"deployment/scale up", func(s *script) {
		s.deploy(2)
		s.always("the old ones stay", atLeast(2, healthy))
		s.scale("deployment/web", 5)
		s.wait("deployment/web", complete(5))
	}},
	{"deployment/scale down", func(s *script) {
		s.deploy(5)
		s.always("no more go than should", atLeast(2, healthy))
		s.scale("deployment/web", 2)
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/scale to zero and back", func(s *script) {
		s.deploy(3)
		s.scale("deployment/web", 0)
		s.wait("deployment/web", complete(0))
		s.waitPods(0)
		s.scale("deployment/web", 2)
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/scale down takes unready pods first", func(s *script) {
		s.deploy(4)
		pods := s.waitPods(4, healthy)
		s.label(pods[1], "mark", "unready")
		s.label(pods[2], "mark", "unready")
		s.unready(pods[1], pods[2])
		s.wait("deployment/web", has("readyReplicas=2"))
		s.scale("deployment/web", 2)
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/a pod is deleted", func(s *script) {
		s.deploy(3)
		gone := s.waitPods(3, healthy)[0]
		s.deletePods(gone)
		s.gone("pod/" + gone.Name)
		s.waitPods(3, healthy)
		s.wait("deployment/web", complete(3))
	}},
	{"deployment/all pods are deleted", func(s *script) {
		s.deploy(3)
		pods := s.waitPods(3, healthy)
		s.deletePods(pods...)
		for _, p := range pods {
			s.gone("pod/" + p.Name)
		}
		s.waitPods(3, healthy)
		s.wait("deployment/web", complete(3))
	}},
	{"deployment/a pod becomes unready", func(s *script) {
		s.deploy(2, "spec: {strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}}")
		s.unready(s.waitPods(2, healthy)[0])
		s.wait("deployment/web", has("readyReplicas=1 unavailableReplicas=1"), tells("Available", "False", "MinimumReplicasUnavailable"))
	}},
	{"deployment/a pod becomes unready and ready again", func(s *script) {
		s.deploy(2, "spec: {strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}}")
		pod := s.waitPods(2, healthy)[0]
		s.unready(pod)
		s.wait("deployment/web", has("readyReplicas=1"), tells("Available", "False", "MinimumReplicasUnavailable"))
		s.ready(pod)
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/a pod fails", func(s *script) {
		s.deploy(2)
		s.exit(1, s.waitPods(2, healthy)[0])
		s.waitPods(2, healthy)
		s.waitPods(3)
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/minReadySeconds", func(s *script) {
		s.create(deployment("web", "spec: {replicas: 2}", untilPatched))
		s.wait("deployment/web", has("readyReplicas=2 availableReplicas=0"), tells("Available", "False", "MinimumReplicasUnavailable"))
		s.patch("deployment/web", "spec: {minReadySeconds: 2}")
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/minReadySeconds changed", func(s *script) {
		s.deploy(2)
		s.patch("deployment/web", "spec: {minReadySeconds: 1}")
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/terminating pods are counted", func(s *script) {
		s.create(deployment("web", "spec: {replicas: 3, template: {metadata: {annotations: {oracle/linger: 'yes'}}}}"))
		s.wait("deployment/web", complete(3))
		s.scale("deployment/web", 1)
		s.wait("deployment/web", has("replicas=1 readyReplicas=1 terminatingReplicas=2"))
		s.end(s.waitPods(2, deleted)...)
		s.wait("deployment/web", complete(1))
	}},
	{"deployment/terminating pods stay", func(s *script) {
		s.create(deployment("web", "spec: {replicas: 3, template: {metadata: {annotations: {oracle/linger: 'yes'}}}}"))
		s.wait("deployment/web", complete(3))
		s.scale("deployment/web", 1)
		s.wait("deployment/web", has("replicas=1 readyReplicas=1 terminatingReplicas=2"))
	}},
	{"deployment/pods can't be created", func(s *script) {
		s.create(deployment("web", "spec: {replicas: 2, template: {metadata: {labels: {oracle/deny: 'yes'}}}}"))
		s.wait("deployment/web", tells("ReplicaFailure", "True", "FailedCreate"), tells("Available", "False", ""))
	}},
	{"deployment/annotations reach the ReplicaSet", func(s *script) {
		s.create(deployment("web", "metadata: {annotations: {team: a, kubernetes.io/change-cause: first}}"))
		s.wait("deployment/web", complete(3))
		s.patch("deployment/web", "metadata: {annotations: {team: b}}")
		s.wait("deployment/web", complete(3))
		s.await("the ReplicaSet has the annotation", func() string {
			for _, rs := range s.list("replicaset") {
				if rs.GetAnnotations()["team"] == "b" {
					return ""
				}
			}
			return "it hasn't"
		})
	}},
	{"deployment/delete", func(s *script) {
		s.deploy(3)
		s.deleteGone("deployment/web", background)
		s.waitPods(0)
		s.await("the ReplicaSet is gone", func() string { return none(s.list("replicaset")) })
	}},
	{"deployment/delete in the foreground", func(s *script) {
		s.deploy(3)
		s.deleteGone("deployment/web", foreground)
		if left := len(s.pods()); left > 0 {
			s.fail("the Deployment went before %d of its pods", left)
		}
	}},
	{"deployment/delete, orphaning", func(s *script) {
		s.deploy(2)
		s.deleteGone("deployment/web", orphan)
		s.waitPods(2, healthy)
	}},
	{"deployment/adopt what was orphaned", func(s *script) {
		s.deploy(2)
		pods := s.waitPods(2, healthy)
		s.deleteGone("deployment/web", orphan)
		s.await("the ReplicaSet has no owner", func() string {
			for _, rs := range s.list("replicaset") {
				if len(rs.GetOwnerReferences()) == 0 {
					return ""
				}
			}
			return "it has"
		})
		s.create(deployment("web", "spec: {replicas: 2}"))
		s.wait("deployment/web", complete(2))
		for _, p := range pods {
			s.waitPods(1, named(p.Name), healthy)
		}
	}},
	{"deployment/adopt a ReplicaSet of the user's", func(s *script) {
		s.create(replicaSet("mine", "spec: {replicas: 2, template: {metadata: {labels: {app: web}}}, selector: {matchLabels: {app: web}}}", "metadata: {labels: {app: web}}"))
		s.wait("replicaset/mine", sized(2))
		s.create(deployment("web", "spec: {replicas: 2}"))
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/adopt a ReplicaSet with the whole template", func(s *script) {
		s.create(deployment("web", "spec: {replicas: 2, paused: true}"))
		s.wait("deployment/web", observed)
		template, _ := s.get("deployment/web").at("spec.template").(map[string]any)
		mine := replicaSet("mine", "metadata: {labels: {app: web}}", "spec: {replicas: 2, selector: {matchLabels: {app: web}}}")
		mine["spec"].(map[string]any)["template"] = template
		s.create(mine)
		s.wait("replicaset/mine", has("replicas=2 readyReplicas=2"))
		s.patch("deployment/web", "spec: {paused: false}")
		s.wait("deployment/web", complete(2))
	}},
	{"deployment/release a ReplicaSet by its labels", func(s *script) {
		s.deploy(2)
		rs := s.list("replicaset")[0]
		s.patch("replicaset/"+rs.GetName(), "metadata: {labels: {app: other}}")
		s.await("the ReplicaSet is released and another is made", func() string {
			sets := s.list("replicaset")
			if len(sets) == 2 && (len(sets[0].GetOwnerReferences()) == 0) != (len(sets[1].GetOwnerReferences()) == 0) {
				return ""
			}
			return fmt.Sprintf("there are %d", len(sets))
		})
		s.wait("deployment/web", has("collisionCount=1"), complete(2))
	}},
}

func none(list []object) string {
	if len(list) == 0 {
		return ""
	}
	return list[0].GetName() + " is there"
}
