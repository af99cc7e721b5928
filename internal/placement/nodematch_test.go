// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// pinned gives a pod a required affinity of one term for each list of names; an empty list makes a term that any node meets.
func pinned(terms ...[]string) func(*pcorev1.Pod) {
	return func(p *pcorev1.Pod) {
		selector := &corev1.NodeSelector{}
		for _, names := range terms {
			term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "name", Operator: corev1.NodeSelectorOpExists}}}
			for _, name := range names {
				term.MatchFields = append(term.MatchFields, corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}})
			}
			selector.NodeSelectorTerms = append(selector.NodeSelectorTerms, term)
		}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: selector}}
	}
}

// TestNamedNodes: a pod that names its node goes there or nowhere, and says why in upstream's words.
func TestNamedNodes(t *testing.T) {
	c := clusterOf(aNode("a"), aNode("b"), aNode("c"))
	for want, pod := range map[string]*pcorev1.Pod{
		"b": aPod("p", "1", pinned([]string{"b"})),
		"c": aPod("p", "1", pinned([]string{"gone"}, []string{"c"})),
		"0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].":                                  aPod("p", "3", pinned([]string{"b"})),
		"0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity].":                                                      aPod("p", "1", pinned([]string{"gone"})),
		"0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].": aPod("p", "1", pinned([]string{"a", "b"})),
	} {
		d := c.Place(NewRequest(pod))
		if d.Node != want && d.Message() != want {
			t.Errorf("%q, %s; want %q", d.Node, d.Message(), want)
		}
	}
	if d := c.Place(NewRequest(aPod("p", "1", pinned([]string{"a"}, nil)))); d.Node == "" {
		t.Error(d.Message())
	}
}

// TestMatchIsFilters: a NodeMatcher says of every node what the filters of placement say of it, room apart.
func TestMatchIsFilters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		node := aNode("a")
		node.Spec.Unschedulable = rapid.Bool().Draw(t, "cordoned")
		effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
		for i := range rapid.IntRange(0, 2).Draw(t, "taints") {
			tainted(fmt.Sprint("t", i), rapid.SampledFrom(effects).Draw(t, "effect"))(node)
		}
		pod := aPod("p", "")
		switch rapid.IntRange(0, 3).Draw(t, "wish") {
		case 1:
			pod.Spec.NodeSelector = map[string]string{"name": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "selected")}
		case 2:
			pinned([]string{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pinned")})(pod)
		case 3:
			pinned(nil)(pod)
			pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0].Operator = "Nonsense"
		}
		for range rapid.IntRange(0, 2).Draw(t, "tolerations") {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: rapid.SampledFrom([]string{"", "t0", "t1", corev1.TaintNodeUnschedulable}).Draw(t, "key"), Operator: corev1.TolerationOpExists,
				Effect: rapid.SampledFrom(append(effects, "")).Draw(t, "of effect"),
			})
		}
		c, r := clusterOf(node), NewRequest(pod)
		m := NewNodeMatcher(&pod.Spec).Match(node)
		if got, want := m.MayStart(), c.check(r, 0) == nil; got != want {
			t.Errorf("MayStart is %v, the filters say %v", got, c.check(r, 0))
		}
		node.Spec.Unschedulable = false
		node.Spec.Taints = keep(node.Spec.Taints, corev1.TaintEffectNoExecute)
		if got, want := m.MayStay(), NewNodeMatcher(&pod.Spec).Match(node).MayStart(); got != want {
			t.Errorf("MayStay is %v, with NoExecute taints alone MayStart is %v", got, want)
		}
	})
}

func keep(taints []corev1.Taint, effect corev1.TaintEffect) []corev1.Taint {
	var out []corev1.Taint
	for _, taint := range taints {
		if taint.Effect == effect {
			out = append(out, taint)
		}
	}
	return out
}
