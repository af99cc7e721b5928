// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func aNode(name string, change ...func(*pcorev1.Node)) *pcorev1.Node {
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("3"),
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, c := range change {
		c(n)
	}
	return n
}

func aPod(name, cpu string, change ...func(*pcorev1.Pod)) *pcorev1.Pod {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "test", UID: types.UID(name)}}
	c := corev1.Container{Name: "main"}
	if cpu != "" {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	p.Spec.Containers = []corev1.Container{c}
	for _, c := range change {
		c(p)
	}
	return p
}

func clusterOf(nodes ...*pcorev1.Node) *Cluster {
	c := NewCluster()
	for _, n := range nodes {
		c.SetNode(n)
	}
	return c
}

func tainted(key string, effect corev1.TaintEffect) func(*pcorev1.Node) {
	return func(n *pcorev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

// TestWhy: each filter objects in upstream's words.
func TestWhy(t *testing.T) {
	hostPort := func(p *pcorev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }
	always := corev1.ContainerRestartPolicyAlways
	for what, test := range map[string]struct {
		nodes  []*pcorev1.Node
		placed []*pcorev1.Pod // on the first node
		pod    *pcorev1.Pod
		want   string
	}{
		"no nodes":     {pod: aPod("p", "1"), want: "no nodes available to schedule pods"},
		"cpu":          {nodes: []*pcorev1.Node{aNode("a"), aNode("b")}, pod: aPod("p", "3"), want: "0/2 nodes are available: 2 Insufficient cpu."},
		"exactly full": {nodes: []*pcorev1.Node{aNode("a")}, pod: aPod("p", "2")},
		"init containers count where they are larger": {nodes: []*pcorev1.Node{aNode("a")}, pod: aPod("p", "1", func(p *pcorev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}}}}
		}), want: "0/1 nodes are available: 1 Insufficient cpu."},
		"sidecars count on top": {nodes: []*pcorev1.Node{aNode("a")}, pod: aPod("p", "1", func(p *pcorev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}}}}
		}), want: "0/1 nodes are available: 1 Insufficient cpu."},
		"overhead counts": {nodes: []*pcorev1.Node{aNode("a")}, pod: aPod("p", "2", func(p *pcorev1.Pod) {
			p.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}
		}), want: "0/1 nodes are available: 1 Insufficient cpu."},
		"extended resources": {nodes: []*pcorev1.Node{aNode("a")}, pod: aPod("p", "1", func(p *pcorev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("1")
		}), want: "0/1 nodes are available: 1 Insufficient example.com/gpu."},
		"pods":                         {nodes: []*pcorev1.Node{aNode("a")}, placed: []*pcorev1.Pod{aPod("x", ""), aPod("y", ""), aPod("z", "")}, pod: aPod("p", ""), want: "0/1 nodes are available: 1 Too many pods."},
		"selector":                     {nodes: []*pcorev1.Node{aNode("a")}, pod: aPod("p", "", func(p *pcorev1.Pod) { p.Spec.NodeSelector = map[string]string{"name": "b"} }), want: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		"taint":                        {nodes: []*pcorev1.Node{aNode("a", tainted("k", corev1.TaintEffectNoExecute))}, pod: aPod("p", ""), want: "0/1 nodes are available: 1 node(s) had untolerated taint(s)."},
		"a preference isn't a refusal": {nodes: []*pcorev1.Node{aNode("a", tainted("k", corev1.TaintEffectPreferNoSchedule))}, pod: aPod("p", "")},
		"tolerated": {nodes: []*pcorev1.Node{aNode("a", tainted("k", corev1.TaintEffectNoSchedule))}, pod: aPod("p", "", func(p *pcorev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
		})},
		"cordoned":        {nodes: []*pcorev1.Node{aNode("a", func(n *pcorev1.Node) { n.Spec.Unschedulable = true })}, pod: aPod("p", ""), want: "0/1 nodes are available: 1 node(s) were unschedulable."},
		"not ready":       {nodes: []*pcorev1.Node{aNode("a", func(n *pcorev1.Node) { n.Status.Conditions = nil })}, pod: aPod("p", ""), want: "0/1 nodes are available: 1 node(s) were not ready."},
		"host port":       {nodes: []*pcorev1.Node{aNode("a")}, placed: []*pcorev1.Pod{aPod("x", "", hostPort)}, pod: aPod("p", "", hostPort), want: "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		"several reasons": {nodes: []*pcorev1.Node{aNode("a"), aNode("b", tainted("k", corev1.TaintEffectNoSchedule))}, pod: aPod("p", "9"), want: "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."},
	} {
		c := clusterOf(test.nodes...)
		for _, p := range test.placed {
			c.SetPod(NewRequest(p), test.nodes[0].Name)
		}
		d := c.Place(NewRequest(test.pod))
		got := ""
		if d.Node == "" {
			got = d.Message()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", what, got, test.want)
		}
	}
}

// TestSpread: pods of one owner spread before they fill a node, and the emptier node is taken first.
func TestSpread(t *testing.T) {
	owned := func(p *pcorev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{UID: "owner", Controller: new(true)}}
	}
	c := clusterOf(aNode("a"), aNode("b"), aNode("c"))
	c.SetPod(NewRequest(aPod("big", "1900m")), "a")
	on := map[string]int{}
	for i := range 3 {
		r := NewRequest(aPod(fmt.Sprint("p", i), "10m", owned))
		d := c.Place(r)
		c.Assume(r, d.Node)
		on[d.Node]++
	}
	if len(on) != 3 {
		t.Errorf("three pods of one owner went to %v", on)
	}
	if d := c.Place(NewRequest(aPod("alone", "10m"))); d.Node == "a" {
		t.Error("a pod without an owner went to the fullest node")
	}
}

// TestAssume: an assumption holds room until it is taken back or confirmed.
func TestAssume(t *testing.T) {
	c := clusterOf(aNode("a"))
	r := NewRequest(aPod("p", "2"))
	c.Assume(r, "a")
	if d := c.Place(NewRequest(aPod("q", "1"))); d.Node != "" {
		t.Error("an assumed pod holds no room")
	}
	c.Forget("p")
	if d := c.Place(NewRequest(aPod("q", "1"))); d.Node != "a" {
		t.Error("a forgotten pod holds room")
	}
	c.Assume(r, "a")
	c.SetPod(r, "a")
	c.Forget("p")
	if d := c.Place(NewRequest(aPod("q", "1"))); d.Node != "" {
		t.Error("a late failure took a bound pod away")
	}
	c.RemoveNode("a")
	c.SetNode(aNode("a"))
	if d := c.Place(NewRequest(aPod("q", "1"))); d.Node != "" {
		t.Error("a node that comes back forgot its pods")
	}
}

// TestNeverOvercommits: whatever comes and goes, a pod is only placed where it fits, by a count made afresh.
func TestNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewCluster()
		type place struct {
			pod  *pcorev1.Pod
			node string
		}
		pods, nodes := map[types.UID]place{}, map[string]bool{}
		next := 0
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			name := fmt.Sprint("node-", rapid.IntRange(0, 3).Draw(t, "node"))
			switch rapid.SampledFrom([]string{"node", "gone", "place", "place", "place", "remove", "forget", "confirm"}).Draw(t, "event") {
			case "node":
				c.SetNode(aNode(name))
				nodes[name] = true
			case "gone":
				c.RemoveNode(name)
				delete(nodes, name)
			case "place":
				next++
				p := aPod(fmt.Sprint("p", next), fmt.Sprintf("%dm", rapid.IntRange(0, 1500).Draw(t, "cpu")))
				r := NewRequest(p)
				d := c.Place(r)
				if d.Node == "" {
					continue
				}
				if !nodes[d.Node] {
					t.Fatalf("placed on %s, which isn't there", d.Node)
				}
				c.Assume(r, d.Node)
				pods[p.UID] = place{p, d.Node}
			default:
				for _, uid := range slices.Sorted(maps.Keys(pods)) {
					p := pods[uid]
					switch rapid.SampledFrom([]string{"remove", "forget", "confirm"}).Draw(t, "what") {
					case "remove":
						c.RemovePod(uid)
						delete(pods, uid)
					case "forget":
						if n, ok := c.NodeOf(uid); ok && n == p.node && c.pods[uid].assumed {
							c.Forget(uid)
							delete(pods, uid)
						}
					case "confirm":
						c.SetPod(NewRequest(p.pod), p.node)
					}
					break // one at a time
				}
			}
			cpu, count := map[string]int64{}, map[string]int{}
			for _, p := range pods {
				cpu[p.node] += p.pod.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
				count[p.node]++
			}
			for n := range nodes {
				if cpu[n] > 2000 || count[n] > 3 {
					t.Fatalf("node %s has %d pods with %dm", n, count[n], cpu[n])
				}
			}
		}
	})
}

func BenchmarkPlace(b *testing.B) {
	c := NewCluster()
	for i := range 100 {
		c.SetNode(aNode(fmt.Sprint("node-", i), func(n *pcorev1.Node) {
			n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1000000000")
			n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("1000000000")
		}))
	}
	pod := aPod("p", "10m")
	for i := range b.N {
		pod.UID = types.UID(fmt.Sprint(i))
		r := NewRequest(pod)
		c.Assume(r, c.Place(r).Node)
	}
}

// TestResizeCountsTheMost: while a pod is resized, what it may still have counts, and what it wishes for unless the node can't give it.
func TestResizeCountsTheMost(t *testing.T) {
	cpuOf := func(text string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(text)}
	}
	for what, test := range map[string]struct {
		wish, allocated, actual, pending string
		want                             int64
	}{
		"at rest":       {"1", "1", "1", "", 1000},
		"growing":       {"2", "1", "1", "", 2000},
		"deferred":      {"2", "1", "1", corev1.PodReasonDeferred, 2000},
		"infeasible":    {"2", "1", "1", corev1.PodReasonInfeasible, 1000},
		"shrinking":     {"1", "1", "2", "", 2000},
		"not given yet": {"1", "2", "2", "", 2000},
	} {
		pod := aPod("p", test.wish, func(p *pcorev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: "main", AllocatedResources: cpuOf(test.allocated), Resources: &corev1.ResourceRequirements{Requests: cpuOf(test.actual)},
			}}
			if test.pending != "" {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: test.pending}}
			}
		})
		if got := NewRequest(pod).amounts[cpu]; got != test.want {
			t.Errorf("%s: %d, want %d", what, got, test.want)
		}
	}
}
