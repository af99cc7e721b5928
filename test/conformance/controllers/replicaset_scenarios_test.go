// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	corev1 "k8s.io/api/core/v1"
)

// replicas makes the scenarios that ReplicaSets and ReplicationControllers share.
func replicas(kind string, make func(name string, changes ...string) manifest) []scenario {
	ref := kind + "/web"
	return []scenario{
		{kind + "/create", func(s *script) {
			s.always("never above the size", atMost(3, active))
			s.create(make("web"))
			s.wait(ref, sized(3))
		}},
		{kind + "/scale up and down", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			s.scale(ref, 6)
			s.wait(ref, sized(6))
			s.scale(ref, 1)
			s.wait(ref, sized(1))
			s.waitPods(1)
		}},
		{kind + "/a pod is deleted", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			gone := s.waitPods(3, healthy)[1]
			s.deletePods(gone)
			s.gone("pod/" + gone.Name)
			s.waitPods(3, healthy)
			s.wait(ref, sized(3))
		}},
		{kind + "/pods fail and end", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			pods := s.waitPods(3, healthy)
			s.exit(1, pods[0])
			s.exit(0, pods[1])
			s.waitPods(5)
			s.waitPods(3, healthy)
			s.wait(ref, sized(3))
		}},
		{kind + "/scale down by deletion cost", func(s *script) {
			s.create(make("web", "spec: {replicas: 4}"))
			s.wait(ref, sized(4))
			for i, p := range s.waitPods(4, healthy) {
				cost := []string{"5", "-3", "100", "0"}[i]
				s.patch("pod/"+p.Name, "metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '"+cost+"'}}")
			}
			s.scale(ref, 2)
			s.wait(ref, sized(2))
			s.waitPods(2)
		}},
		{kind + "/scale down takes unready pods before cheap ones", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			pods := s.waitPods(3, healthy)
			s.patch("pod/"+pods[0].Name, "metadata: {labels: {mark: cheap}, annotations: {controller.kubernetes.io/pod-deletion-cost: '-10'}}")
			s.label(pods[1], "mark", "unready")
			s.unready(pods[1])
			s.wait(ref, has("readyReplicas=2"))
			s.scale(ref, 2)
			s.wait(ref, has("replicas=2 readyReplicas=2"))
			s.waitPods(2)
		}},
		{kind + "/adopt pods", func(s *script) {
			s.create(barePod("mine-1", "metadata: {labels: {app: web}}"))
			s.create(barePod("mine-2", "metadata: {labels: {app: web}}"))
			s.waitPods(2, healthy)
			s.create(make("web"))
			s.wait(ref, sized(3))
			s.waitPods(3, of("web"))
		}},
		{kind + "/adopt more pods than wanted", func(s *script) {
			for _, name := range []string{"mine-1", "mine-2", "mine-3"} {
				s.create(barePod(name, "metadata: {labels: {app: web}}", "metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '"+name[5:]+"'}}"))
			}
			s.waitPods(3, healthy)
			s.create(make("web", "spec: {replicas: 1}"))
			s.wait(ref, sized(1))
			s.waitPods(1)
		}},
		{kind + "/pods of others aren't adopted", func(s *script) {
			s.create(make("other", "spec: {replicas: 2}"))
			s.wait(kind+"/other", sized(2))
			s.label(s.waitPods(2, healthy)[0], "extra", "yes")
			s.create(make("web", "spec: {replicas: 1}"))
			s.wait(ref, sized(1))
			s.waitPods(3, healthy)
		}},
		{kind + "/release a pod by its label", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			s.label(s.waitPods(3, healthy)[0], "app", "released")
			s.waitPods(1, of("released"), func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
			s.waitPods(3, of("web"), healthy)
			s.wait(ref, sized(3))
		}},
		{kind + "/a released pod comes back", func(s *script) {
			s.create(make("web", "spec: {replicas: 2}"))
			s.wait(ref, sized(2))
			pod := s.waitPods(2, healthy)[0]
			s.label(pod, "app", "released")
			s.waitPods(2, of("web"), healthy)
			s.patch("pod/"+pod.Name, "metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '10'}}")
			s.label(pod, "app", "web")
			s.waitPods(2)
			s.wait(ref, sized(2))
		}},
		{kind + "/template changes", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			s.setImage(ref, "app:2")
			s.wait(ref, sized(3))
			gone := s.waitPods(3, healthy)[0]
			s.deletePods(gone)
			s.gone("pod/" + gone.Name)
			s.waitPods(1, running("app:2"), healthy)
			s.wait(ref, sized(3))
		}},
		{kind + "/minReadySeconds", func(s *script) {
			s.create(make("web", untilPatched))
			s.wait(ref, has("readyReplicas=3 availableReplicas=0"))
			s.patch(ref, "spec: {minReadySeconds: 2}")
			s.wait(ref, sized(3))
		}},
		{kind + "/pods can't be created", func(s *script) {
			s.create(make("web", "spec: {template: {metadata: {labels: {oracle/deny: 'yes'}}}}"))
			s.wait(ref, tells("ReplicaFailure", "True", "FailedCreate"))
		}},
		{kind + "/pods couldn't be created, and can", func(s *script) {
			s.create(make("web", "spec: {replicas: 2, template: {metadata: {labels: {oracle/deny: 'yes'}}}}"))
			s.wait(ref, tells("ReplicaFailure", "True", "FailedCreate"))
			s.patch(ref, "spec: {template: {metadata: {labels: {oracle/deny: null}}}}")
			s.wait(ref, sized(2), tells("ReplicaFailure", "", ""))
		}},
		{kind + "/delete, orphaning", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			s.deleteGone(ref, orphan)
			s.waitPods(3, healthy, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
		}},
		{kind + "/delete in the foreground", func(s *script) {
			s.create(make("web"))
			s.wait(ref, sized(3))
			s.deleteGone(ref, foreground)
			s.waitPods(0)
		}},
		{kind + "/pods that linger are terminating", func(s *script) {
			s.create(make("web", "spec: {template: {metadata: {annotations: {oracle/linger: 'yes'}}}}"))
			s.wait(ref, sized(3))
			gone := s.waitPods(3, healthy)[0]
			s.deletePods(gone)
			s.waitPods(1, deleted)
			s.waitPods(3, healthy)
			s.wait(ref, has("replicas=3 readyReplicas=3"))
		}},
	}
}

var replicaSetScenarios = append(replicas("replicaset", replicaSet), replicas("replicationcontroller", replicationController)...)
