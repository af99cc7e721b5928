// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// TestCompare shows what counts as a difference between two states.
func TestCompare(t *testing.T) {
	for name, tc := range map[string]struct {
		native, ours state
		want         []string
	}{
		"equal":   {state{"job/a": "there", "job/a: x": "1"}, state{"job/a": "there", "job/a: x": "1"}, nil},
		"a value": {state{"job/a": "there", "job/a: x": "1"}, state{"job/a": "there", "job/a: x": "2"}, []string{`job/a: x: upstream has "1", ours has "2"`}},
		"a field": {state{"job/a": "there", "job/a: x": "1"}, state{"job/a": "there"}, []string{`job/a: x: upstream has "1", ours has nothing`}},
		"an object too many": {state{}, state{"pod #1": "there", "pod #1: x": "1", "pod #1: y": "2"}, []string{
			`pod #1: upstream has nothing, ours has "there"`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, compare(tc.native, tc.ours)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestJudge shows that the oracle can fail: on a line that isn't listed for the scenario.
func TestJudge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "differences.yaml")
	if err := os.WriteFile(file, []byte(`[{id: one, scenarios: ["job/*"], line: 'job/a: x: .*', reason: It is here for the test.}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	differences, err := loadDifferences(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		scenario, line   string
		listed, unlisted int
	}{
		{"job/a case", `job/a: x: upstream has "1", ours has "2"`, 1, 0},
		{"job/a case", `job/a: y: upstream has "1", ours has "2"`, 0, 1},
		{"cronjob/a case", `job/a: x: upstream has "1", ours has "2"`, 0, 1},
	} {
		listed, unlisted := judge(tc.scenario, []string{tc.line}, differences)
		if len(listed) != tc.listed || len(unlisted) != tc.unlisted {
			t.Errorf("%s, %s: listed %v, unlisted %v", tc.scenario, tc.line, listed, unlisted)
		}
	}
}

// TestRules shows that each rule can be broken.
func TestRules(t *testing.T) {
	pod := func(name, image string, ready bool, labels ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for i := 0; i+1 < len(labels); i += 2 {
			p.Labels[labels[i]] = labels[i+1]
		}
		p.Spec.Containers = []corev1.Container{{Name: "main", Image: image}}
		p.Spec.NodeName = "n"
		begin(p)
		setReady(p, ready)
		return p
	}
	const indexLabel = "batch.kubernetes.io/job-completion-index"
	for name, tc := range map[string]struct {
		rule         rule
		event        event
		good, broken []*corev1.Pod
	}{
		"atLeast":     {rule: atLeast(1, healthy), good: []*corev1.Pod{pod("a", "app:1", true)}, broken: []*corev1.Pod{pod("a", "app:1", false)}},
		"atMost":      {rule: atMost(1, active), good: []*corev1.Pod{pod("a", "app:1", true)}, broken: []*corev1.Pod{pod("a", "app:1", true), pod("b", "app:1", true)}},
		"oneImage":    {rule: oneImage, good: []*corev1.Pod{pod("a", "app:1", true)}, broken: []*corev1.Pod{pod("a", "app:1", true), pod("b", "app:2", true)}},
		"onePerIndex": {rule: onePerIndex, good: []*corev1.Pod{pod("a", "app:1", true, indexLabel, "0"), pod("b", "app:1", true, indexLabel, "1")}, broken: []*corev1.Pod{pod("a", "app:1", true, indexLabel, "0"), pod("b", "app:1", true, indexLabel, "0")}},
		"onePerNode":  {rule: onePerNode, good: []*corev1.Pod{pod("a", "app:1", true)}, broken: []*corev1.Pod{pod("a", "app:1", true), pod("b", "app:1", true)}},
		"inOrder": {
			rule: inOrder(0), event: event{came, pod("db-1", "app:1", false)},
			good: []*corev1.Pod{pod("db-0", "app:1", true)}, broken: []*corev1.Pod{pod("db-0", "app:1", false)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.rule(tc.event, tc.good); got != "" {
				t.Errorf("it is kept, and the rule says: %s", got)
			}
			if tc.rule(tc.event, tc.broken) == "" {
				t.Error("it is broken, and the rule says nothing")
			}
		})
	}
}

// TestTranslate shows that a manifest moves over by the suffix rule, with what it refers to and with its pods confined.
func TestTranslate(t *testing.T) {
	m := statefulSet("db", claims, "metadata: {ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: a, uid: b}]}")
	ours := m.translated(m.gvk(), suffix.ToPinnace)
	confine(ours, "p")
	o := (&side{ours: true}).in(m)
	if got := o.GetAPIVersion(); got != "apps.pinnace.dev/v1" {
		t.Errorf("apiVersion is %s", got)
	}
	if got := o.GetOwnerReferences()[0].APIVersion; got != "apps.pinnace.dev/v1" {
		t.Errorf("the owner's apiVersion is %s", got)
	}
	if m["apiVersion"] != "apps/v1" {
		t.Error("the scenario's own manifest was changed")
	}
	spec := ours["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	if diff := cmp.Diff(map[string]any{poolLabel: "p"}, spec["nodeSelector"]); diff != "" {
		t.Errorf("the node selector (-want +got):\n%s", diff)
	}
}

// TestScenarios holds the list to its form.
func TestScenarios(t *testing.T) {
	seen := map[string]bool{}
	kinds := map[string]int{}
	for _, one := range scenarios() {
		kind, what, ok := strings.Cut(one.name, "/")
		if _, known := resources[kind]; !ok || !known || what == "" {
			t.Errorf("%q isn't of the form kind/what happens", one.name)
		}
		if seen[one.name] {
			t.Errorf("two scenarios are named %q", one.name)
		}
		seen[one.name] = true
		kinds[kind]++
	}
	for _, kind := range []string{"deployment", "replicaset", "replicationcontroller", "statefulset", "daemonset", "job", "cronjob", "poddisruptionbudget"} {
		if kinds[kind] < 5 {
			t.Errorf("there are only %d scenarios of %s", kinds[kind], kind)
		}
	}
}
