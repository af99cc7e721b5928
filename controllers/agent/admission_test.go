// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func smallNode() *pcorev1.Node {
	return &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"disk": "ssd"}}}
}

func smallAllocatable() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("2"),
		corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"), "hugepages-2Mi": resource.MustParse("4Mi"),
	}
}

func asks(name corev1.ResourceName, amount string) func(*pcorev1.Pod) {
	return func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse(amount)}
	}
}

func TestUnfit(t *testing.T) {
	port := func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	}
	strict := corev1.SupplementalGroupsPolicyStrict
	cases := map[string]struct {
		pod, other func(*pcorev1.Pod)
		node       func(*pcorev1.Node)
		facts      place
		reason     string
		message    string
	}{
		"nothing is asked":     {},
		"just enough":          {pod: asks("cpu", "1500m"), other: asks("cpu", "500m")},
		"cpu":                  {pod: asks("cpu", "1501m"), other: asks("cpu", "500m"), reason: "OutOfcpu", message: "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000"},
		"memory":               {pod: asks("memory", "2Gi"), reason: "OutOfmemory", message: "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"},
		"disk":                 {pod: asks("ephemeral-storage", "11Gi"), reason: "OutOfephemeral-storage", message: "Node didn't have enough resource: ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240"},
		"huge pages":           {pod: asks("hugepages-2Mi", "8Mi"), reason: "OutOfhugepages-2Mi", message: "Node didn't have enough resource: hugepages-2Mi, requested: 8388608, used: 0, capacity: 4194304"},
		"what nobody counts":   {pod: asks("example.com/gpu", "1")},
		"a selector":           {pod: func(p *pcorev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "hdd"} }, reason: "NodeAffinity", message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"a selector that fits": {pod: func(p *pcorev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }},
		"a port":               {pod: port, other: port, reason: "NodePorts", message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		"a free port":          {pod: port},
		"a taint":              {node: tainted("example.com/broken", corev1.TaintEffectNoExecute), reason: "TaintToleration", message: "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"},
		"a taint for others":   {node: tainted("example.com/broken", corev1.TaintEffectNoSchedule)},
		"a node that is lost":  {node: tainted(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)},
		"another system":       {pod: func(p *pcorev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: "PodOSNotSupported", message: "Failed to admit pod as the OS field doesn't match node OS"},
		"another system's label": {
			pod:    func(p *pcorev1.Pod) { p.Labels = map[string]string{corev1.LabelOSStable: "windows"} },
			reason: "PodOSSelectorNodeLabelDoesNotMatch", message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
		},
		"a strict policy": {
			pod: func(p *pcorev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroupsPolicy: &strict}
			},
			facts:  place{withoutGroupsPolicy: true},
			reason: "SupplementalGroupsPolicyNotSupported", message: "SupplementalGroupsPolicy=Strict is not supported in this node: use Merge",
		},
	}
	for name, c := range cases {
		pod, other := aPod("new").Obj(), aPod("there").Obj()
		for _, each := range []struct {
			change func(*pcorev1.Pod)
			pod    *pcorev1.Pod
		}{{c.pod, pod}, {c.other, other}} {
			if each.change != nil {
				each.change(each.pod)
			}
		}
		c.facts.node, c.facts.allocatable = smallNode(), smallAllocatable()
		if c.node != nil {
			c.node(c.facts.node)
		}
		got := unfit(pod, holdingOf(pod), holdingOf(other), c.facts)
		if got.reason != c.reason || got.message != c.message {
			t.Errorf("%s: got %q, %q; want %q, %q", name, got.reason, got.message, c.reason, c.message)
		}
	}
}

func tainted(key string, effect corev1.TaintEffect) func(*pcorev1.Node) {
	return func(n *pcorev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: key, Effect: effect}} }
}

// TestAdmitTakesOneOfTwo lets many pods come at once to a node with room for some of them.
func TestAdmitTakesOneOfTwo(t *testing.T) {
	const room, come = 2, 20
	var l ledger
	var wait sync.WaitGroup
	var admitted atomic.Int32
	for i := range come {
		wait.Go(func() {
			judge := func(others holding) podFailure { return lacking(holding{pods: 1}, others, smallAllocatable()) }
			if why := l.admit(types.UID(fmt.Sprint(i)), holding{pods: 1}, judge); why.reason == "" {
				admitted.Add(1)
			}
		})
	}
	wait.Wait()
	if admitted.Load() != room {
		t.Errorf("%d pods were taken, and there is room for %d", admitted.Load(), room)
	}
}

// TestAdmit holds new pods against what runs already, and never asks again about those.
func TestAdmit(t *testing.T) {
	started := aPod("started").Obj()
	asks("cpu", "1500m")(started)
	started.Status.StartTime = &metav1.Time{Time: planNow}
	done := started.DeepCopy()
	done.Name, done.UID, done.Status.Phase = "done", "uid-done", corev1.PodSucceeded
	r := newRig(t, smallNode(), started, done)
	node := &nodeState{Node: Node{Name: "node-1", Runtime: r.runtime, Allocatable: smallAllocatable()}}
	admit := func(pod *pcorev1.Pod) string {
		t.Helper()
		rec := r.agent.records.get(node, pod.UID, types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, r.now)
		why, err := r.agent.admit(t.Context(), rec, pod)
		if err != nil {
			t.Fatal(err)
		}
		return why.reason
	}
	fresh := func(name, cpu string) *pcorev1.Pod {
		pod := aPod(name).Obj()
		asks("cpu", cpu)(pod)
		return pod
	}
	elsewhere := fresh("elsewhere", "100m")
	elsewhere.Spec.NodeSelector = map[string]string{"disk": "hdd"}
	static := fresh("static", "5")
	static.Annotations = map[string]string{annotationConfigSource: "file"}
	for _, c := range []struct {
		pod  *pcorev1.Pod
		want string
	}{
		{fresh("large", "1"), "OutOfcpu"}, {elsewhere, "NodeAffinity"}, {fresh("fits", "500m"), ""}, {fresh("third", "0"), "OutOfpods"},
		{started, ""}, {static, ""},
	} {
		if got := admit(c.pod); got != c.want {
			t.Errorf("%s: got %q, want %q", c.pod.Name, got, c.want)
		}
	}
}
