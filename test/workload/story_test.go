// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/placement"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

type restConfig = rest.Config

// TestDeploymentStory follows one Deployment through its life.
func TestDeploymentStory(t *testing.T) {
	w := newWorld(t, options{nodes: 3})
	d := w.deployment("web", 3)
	w.ready(d)

	pods := w.pods("web")
	nodes := map[string]bool{}
	for _, p := range pods {
		nodes[p.Spec.NodeName] = true
		if len(p.Finalizers) != 1 || p.Finalizers[0] != placement.NodeFinalizer {
			t.Errorf("pod %s has finalizers %v", p.Name, p.Finalizers)
		}
		if ref := metav1.GetControllerOf(&p); ref == nil || ref.Kind != "ReplicaSet" || ref.BlockOwnerDeletion == nil || !*ref.BlockOwnerDeletion {
			t.Errorf("pod %s has owner %v", p.Name, ref)
		}
	}
	if len(pods) != 3 || len(nodes) != 3 {
		t.Fatalf("%d pods on %d nodes, want 3 on 3", len(pods), len(nodes))
	}
	if got := d.Status.Columns["ready"]; got != "3/3" {
		t.Errorf("ready column %q", got)
	}
	if d.Annotations[revision.Annotation] != "1" {
		t.Errorf("revision %q, want 1", d.Annotations[revision.Annotation])
	}

	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(5)) })
	w.ready(d)
	if n := len(w.pods("web")); n != 5 {
		t.Fatalf("%d pods after scaling up, want 5", n)
	}
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(2)) })
	w.ready(d)
	w.eventually("two pods stay", func() error {
		if n := len(w.pods("web")); n != 2 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})

	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.ready(d)
	w.onlyImage("web", "image:2")
	w.eventually("revision 2", func() error { return w.revision(d, "2") })

	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:1" })
	w.ready(d)
	w.onlyImage("web", "image:1")
	w.eventually("revision 3", func() error { return w.revision(d, "3") })
	var sets pappsv1.ReplicaSetList
	w.must(w.List(w.ctx, &sets, client.InNamespace(w.namespace)))
	if len(sets.Items) != 2 {
		t.Fatalf("%d ReplicaSets after going back, want the first one used again", len(sets.Items))
	}

	w.change(d, func(d *pappsv1.Deployment) {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[revision.RollbackAnnotation] = "2"
	})
	w.eventually("the rollback to revision 2", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		if d.Spec.Template.Spec.Containers[0].Image != "image:2" {
			return errNotYet
		}
		return nil
	})
	w.ready(d)
	w.onlyImage("web", "image:2")

	w.must(w.Delete(w.ctx, d))
	w.eventually("everything goes with the Deployment", func() error {
		w.must(w.List(w.ctx, &sets, client.InNamespace(w.namespace)))
		var list pcorev1.PodList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		if len(sets.Items)+len(list.Items) > 0 {
			return fmt.Errorf("%d ReplicaSets and %d pods are left", len(sets.Items), len(list.Items))
		}
		return nil
	})
}

// TestStuckRolloutSaysWhy: the Deployment itself names the first failing pod's reason.
func TestStuckRolloutSaysWhy(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	d := w.deployment("web", 3, func(d *pappsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = new(int32(2)) })
	w.ready(d)
	w.agent.breakImage("image:bad")
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:bad" })
	w.eventually("the Deployment is stalled", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		c, ok := condition.Deployment.Get(d.Status.Conditions, pcorev1.ConditionStalled)
		if !ok || c.Reason != "ProgressDeadlineExceeded" {
			return fmt.Errorf("conditions %+v", d.Status.Conditions)
		}
		if want := "ImagePullBackOff: the image isn't there."; len(c.Message) < len(want) || c.Message[len(c.Message)-len(want):] != want {
			return fmt.Errorf("message %q", c.Message)
		}
		return nil
	})
	if d.Status.AvailableReplicas < 3 {
		t.Errorf("%d pods available during the stuck rollout; 25%% of 3 rounds down to none that may lack", d.Status.AvailableReplicas)
	}
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:1" })
	w.ready(d)
	w.onlyImage("web", "image:1")
}

// TestRecreate: no new pod before the last old one is gone.
func TestRecreate(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	d := w.deployment("web", 3, func(d *pappsv1.Deployment) {
		d.Spec.Strategy.Type = "Recreate"
	})
	w.ready(d)
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.eventually("the new pods are alone", func() error {
		var list pcorev1.PodList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		images := map[string]int{}
		for _, p := range list.Items {
			images[p.Spec.Containers[0].Image]++
		}
		if images["image:1"] > 0 && images["image:2"] > 0 {
			t.Fatalf("old and new pods at once: %v", images)
		}
		if images["image:2"] != 3 {
			return fmt.Errorf("images %v", images)
		}
		return nil
	})
	w.ready(d)
}

// TestUnschedulable: a pod that fits nowhere says why, and is placed when room is made.
func TestUnschedulable(t *testing.T) {
	w := newWorld(t, options{nodes: 2, cpu: "1"})
	d := w.deployment("big", 1, func(d *pappsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *intQuantity(3)
	})
	w.eventually("the pod says why it waits", func() error {
		pods := w.pods("big")
		if len(pods) != 1 {
			return fmt.Errorf("%d pods", len(pods))
		}
		c, _ := condition.Pod.Get(pods[0].Status.Conditions, string(corev1.PodScheduled))
		if c.Reason != "Unschedulable" || c.Message != "0/2 nodes are available: 2 Insufficient cpu." {
			return fmt.Errorf("condition %+v", c)
		}
		if pods[0].Status.Columns["status"] != "Pending" {
			return fmt.Errorf("columns %v", pods[0].Status.Columns)
		}
		return nil
	})
	w.eventually("the Deployment passes it on", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		c, _ := condition.Deployment.Get(d.Status.Conditions, pcorev1.ConditionReady)
		if c.Reason != "Unschedulable" {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.node(w.namespace+"-large", "8")
	w.ready(d)
}

// TestLostNode: pods of a node that is deleted don't hang; the Deployment gets new ones elsewhere.
func TestLostNode(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	d := w.deployment("web", 4)
	w.ready(d)
	victim := w.pods("web")[0].Spec.NodeName
	w.agent.ignore(victim)
	w.must(w.Delete(w.ctx, &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: victim}}))
	w.eventually("all pods are on the other node", func() error {
		var list pcorev1.PodList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		for _, p := range list.Items {
			if p.Spec.NodeName == victim {
				return fmt.Errorf("pod %s is still there", p.Name)
			}
		}
		return nil
	})
	w.ready(d)
}

// TestNodesGetAddresses: each node gets a part of the pod range of its own.
func TestNodesGetAddresses(t *testing.T) {
	w := newWorld(t, options{nodes: 3})
	w.eventually("three different ranges", func() error {
		var nodes pcorev1.NodeList
		w.must(w.List(w.ctx, &nodes))
		seen := map[string]bool{}
		for _, n := range nodes.Items {
			if n.Spec.PodCIDR == "" || seen[n.Spec.PodCIDR] {
				return fmt.Errorf("node %s has range %q", n.Name, n.Spec.PodCIDR)
			}
			seen[n.Spec.PodCIDR] = true
		}
		return nil
	})
}

// TestAdoption: a ReplicaSet takes orphans that match, and lets go what no longer does.
func TestAdoption(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	d := w.deployment("web", 2)
	w.ready(d)
	pod := w.pods("web")[0]
	pod.Labels["app"] = "out-of-service"
	w.must(w.Update(w.ctx, &pod))
	w.eventually("the pod is released and replaced", func() error {
		var fresh pcorev1.Pod
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(&pod), &fresh))
		if metav1.GetControllerOf(&fresh) != nil || len(w.pods("web")) != 2 {
			return errNotYet
		}
		return nil
	})
	w.eventually("the pod comes back and one is one too many", func() error {
		var fresh pcorev1.Pod
		err := w.Get(w.ctx, client.ObjectKeyFromObject(&pod), &fresh)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err == nil && fresh.Labels["app"] != "web" {
			fresh.Labels["app"] = "web"
			return fmt.Errorf("labelled back: %w", orNotYet(w.Update(w.ctx, &fresh)))
		}
		if n := len(w.pods("web")); n != 2 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	w.ready(d)
}

// TestRollingUpdateBounds: during a rollout of ten pods, never more than the surge and never fewer than the bound.
func TestRollingUpdateBounds(t *testing.T) {
	w := newWorld(t, options{nodes: 4})
	d := w.deployment("web", 10, func(d *pappsv1.Deployment) {
		surge, unavailable := intstr.FromInt32(2), intstr.FromString("20%")
		d.Spec.Strategy.RollingUpdate = rolling(surge, unavailable)
	})
	w.ready(d)
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.eventually("the rollout ends", func() error {
		ready, there := 0, w.pods("web")
		updated := 0
		for _, p := range there {
			if c, _ := condition.Pod.Get(p.Status.Conditions, string(corev1.PodReady)); c.Status == corev1.ConditionTrue {
				ready++
				if p.Spec.Containers[0].Image == "image:2" {
					updated++
				}
			}
		}
		if len(there) > 12 || ready < 8 {
			t.Fatalf("%d pods, %d ready: out of bounds", len(there), ready)
		}
		if updated != 10 || len(there) != 10 {
			return fmt.Errorf("%d updated of %d", updated, len(there))
		}
		return nil
	})
	w.ready(d)
}
