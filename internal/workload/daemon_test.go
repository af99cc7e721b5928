// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// TestPinToNode: the required terms for nodes give way to the node's name, the rest of the affinity stays, and nothing of the original changes.
func TestPinToNode(t *testing.T) {
	affinity := &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpExists}},
			}}},
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1}},
		},
		PodAffinity: &corev1.PodAffinity{},
	}
	before := affinity.DeepCopy()
	got := PinToNode(affinity, "a")
	if diff := cmp.Diff(before, affinity); diff != "" {
		t.Errorf("the original changed:\n%s", diff)
	}
	want := affinity.DeepCopy()
	want.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"a"}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTargetNode(t *testing.T) {
	of := func(change func(*corev1.PodSpec)) *pcorev1.Pod {
		p := &pcorev1.Pod{}
		change(&p.Spec.PodSpec)
		return p
	}
	field := func(values ...string) *corev1.Affinity {
		a := PinToNode(nil, "")
		a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values = values
		return a
	}
	for name, tt := range map[string]struct {
		pod  *pcorev1.Pod
		want string
	}{
		"nowhere":         {of(func(*corev1.PodSpec) {}), ""},
		"placed":          {of(func(s *corev1.PodSpec) { s.NodeName = "a" }), "a"},
		"pinned":          {of(func(s *corev1.PodSpec) { s.Affinity = PinToNode(nil, "b") }), "b"},
		"placed, pinned":  {of(func(s *corev1.PodSpec) { s.NodeName, s.Affinity = "a", PinToNode(nil, "b") }), "a"},
		"either of two":   {of(func(s *corev1.PodSpec) { s.Affinity = field("a", "b") }), ""},
		"an empty choice": {of(func(s *corev1.PodSpec) { s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}} }), ""},
	} {
		got, ok := TargetNode(tt.pod)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestDaemonTolerations: the list is upstream's; what the user tolerates for a time is tolerated for good, what he tolerates besides stays.
func TestDaemonTolerations(t *testing.T) {
	spec := &pcorev1.PodSpec{}
	spec.HostNetwork = true
	spec.Tolerations = []corev1.Toleration{
		{Operator: corev1.TolerationOpExists},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(5))},
	}
	before := spec.DeepCopy()
	var got []string
	for _, tol := range WithDaemonTolerations(spec).Tolerations {
		got = append(got, fmt.Sprint(tol.Key, " ", tol.Operator, " ", tol.Effect, " ", tol.TolerationSeconds == nil))
	}
	want := []string{
		" Exists  true",
		"node.kubernetes.io/unreachable Exists NoExecute true",
		"node.kubernetes.io/not-ready Exists NoExecute true",
		"node.kubernetes.io/disk-pressure Exists NoSchedule true",
		"node.kubernetes.io/memory-pressure Exists NoSchedule true",
		"node.kubernetes.io/pid-pressure Exists NoSchedule true",
		"node.kubernetes.io/unschedulable Exists NoSchedule true",
		"node.kubernetes.io/network-unavailable Exists NoSchedule true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, spec); diff != "" {
		t.Errorf("the original changed:\n%s", diff)
	}
}

// TestNodePodNames: thousands of nodes get names of their own, each the same every time.
func TestNodePodNames(t *testing.T) {
	names := func() map[string]bool {
		taken := map[string]bool{}
		for i := range 5000 {
			name := NodePodName("net", "uid", fmt.Sprint("node-", i), taken)
			if name == "" || taken[name] {
				t.Fatalf("name %q", name)
			}
			taken[name] = true
		}
		return taken
	}
	if diff := cmp.Diff(names(), names()); diff != "" {
		t.Error(diff)
	}
	if NodePodName("net", "uid", "a", nil) == NodePodName("net", "other", "a", nil) {
		t.Error("two DaemonSets of one name, one after the other, share a pod's name")
	}
}
