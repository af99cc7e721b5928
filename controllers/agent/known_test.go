// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func TestKnownPodsAndImages(t *testing.T) {
	r := newRig(t)
	r.create(aPod("a").Init("init").Change(func(p *pcorev1.Pod) {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "debug:1"}}}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1"}}}}
		p.Spec.NodeName = "node-1"
	}).Obj())
	r.create(aPod("elsewhere").Change(func(p *pcorev1.Pod) { p.Spec.NodeName = "node-2" }).Obj())
	done := r.create(aPod("done").Restart(corev1.RestartPolicyNever).Change(func(p *pcorev1.Pod) { p.Spec.Containers[0].Image = "job:1" }).Obj())
	r.exit(done, "main", 0)
	// Of this one only the agent knows: its object went without asking.
	r.agent.records.get(r.agent.node("node-1"), "orphan", types.NamespacedName{Namespace: "default", Name: "orphan"}, r.clock())
	uids, images, err := r.agent.Known(t.Context(), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[types.UID]bool{"uid-a": true, "uid-done": true, "orphan": true}, uids); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"data:1", "debug:1", "hello:1", "init:1"}, images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}
