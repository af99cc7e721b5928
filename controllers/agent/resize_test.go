// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

func amounts(cpu, memory string) corev1.ResourceList {
	out := corev1.ResourceList{}
	if cpu != "" {
		out[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

// Asks gives the first container requests, which are its limits as well.
func (b *podBuilder) Asks(cpu, memory string) *podBuilder {
	b.pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts(cpu, memory), Limits: amounts(cpu, memory)}
	return b
}

// resize writes new requests and limits into the spec, as the API server does for the subresource.
func (r *rig) resize(key types.NamespacedName, cpu, memory string) {
	r.t.Helper()
	pod := r.pod(key)
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts(cpu, memory), Limits: amounts(cpu, memory)}
	pod.Generation++
	if err := r.client.Update(r.t.Context(), pod); err != nil {
		r.t.Fatal(err)
	}
	r.settle(key)
}

func (r *rig) has(id string) *runtimeapi.LinuxContainerResources {
	r.t.Helper()
	status, err := r.runtime.ContainerStatus(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return status.GetResources().GetLinux()
}

// shown is what the status says: actual limit of CPU, allocated CPU, and the conditions of the resize.
func (r *rig) shown(key types.NamespacedName) string {
	r.t.Helper()
	pod := r.pod(key)
	c := pod.Status.ContainerStatuses[0]
	parts := []string{}
	if c.Resources != nil {
		parts = append(parts, c.Resources.Limits.Cpu().String())
	}
	allocated := c.AllocatedResources[corev1.ResourceCPU]
	parts = append(parts, allocated.String())
	for _, t := range []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress} {
		if cond := podstate.FindCondition(pod.Status.Conditions, t); cond != nil {
			parts = append(parts, string(t)+":"+cond.Reason)
		}
	}
	return strings.Join(parts, " ")
}

func (r *rig) nodeHas(cpu, memory string) {
	r.agent.node("node-1").Allocatable = amounts(cpu, memory)
}

func TestResizeInPlace(t *testing.T) {
	r := newRig(t)
	r.nodeHas("4", "8Gi")
	key := r.create(aPod("a").Asks("1", "64Mi").Obj())
	id := r.containerID(key, "main")
	if has := r.has(id); has.CpuQuota != 100000 || has.CpuShares != 1024 || has.MemoryLimitInBytes != 64<<20 {
		t.Fatalf("a new container has %v", has)
	}
	r.resize(key, "2", "128Mi")
	if has := r.has(id); has.CpuQuota != 200000 || has.CpuShares != 2048 || has.MemoryLimitInBytes != 128<<20 {
		t.Errorf("after the resize it has %v", has)
	}
	if got := r.shown(key); got != "2 2" || r.containerID(key, "main") != id || r.pod(key).Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("status: %s", got)
	}
	// What the status says is all that a new agent needs.
	updates := r.runtime.Count("UpdateContainerResources")
	r.restart()
	r.nodeHas("4", "8Gi")
	r.settle(key)
	if n := r.runtime.Count("UpdateContainerResources"); n != updates {
		t.Errorf("a new agent resizes again: %d calls", n-updates)
	}
	// A resize that comes while no agent runs is made up for.
	r.restart()
	r.nodeHas("4", "8Gi")
	r.resize(key, "3", "128Mi")
	if got := r.shown(key); got != "3 3" || r.has(id).CpuQuota != 300000 {
		t.Errorf("after the resize during a restart: %s, %v", got, r.has(id))
	}
}

func TestResizeWaitsForRoom(t *testing.T) {
	r := newRig(t)
	r.nodeHas("4", "8Gi")
	a, b := r.create(aPod("a").Asks("2", "1Gi").Obj()), r.create(aPod("b").Asks("2", "1Gi").Obj())
	id := r.containerID(a, "main")
	r.resize(a, "5", "1Gi")
	if got := r.shown(a); got != "2 2 PodResizePending:Infeasible" {
		t.Errorf("more than the node has: %s", got)
	}
	if c := podstate.FindCondition(r.pod(a).Status.Conditions, corev1.PodResizePending); c.Message != "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000" || c.ObservedGeneration != 2 {
		t.Errorf("the condition: %+v", c)
	}
	r.resize(a, "3", "1Gi")
	if got := r.shown(a); got != "2 2 PodResizePending:Deferred" || r.has(id).CpuQuota != 200000 {
		t.Errorf("more than is free: %s", got)
	}
	r.delete(b)
	r.settle(b, a)
	if got := r.shown(a); got != "3 3" || r.has(id).CpuQuota != 300000 {
		t.Errorf("when the other is gone: %s, %v", got, r.has(id))
	}
}

func TestResizeByRestart(t *testing.T) {
	for _, policy := range []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure} {
		r := newRig(t)
		key := r.create(aPod("a").Asks("1", "64Mi").Restart(policy).Change(func(p *pcorev1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		}).Obj())
		id := r.containerID(key, "main")
		r.resize(key, "2", "64Mi")
		if r.containerID(key, "main") != id || r.has(id).CpuQuota != 200000 {
			t.Errorf("%s: CPU isn't changed in place", policy)
		}
		for range 2 { // neither time a back-off
			id = r.containerID(key, "main")
			memory := map[int64]string{64 << 20: "128Mi", 128 << 20: "64Mi"}[r.has(id).MemoryLimitInBytes]
			r.resize(key, "2", memory)
			now := r.containerID(key, "main")
			want := resource.MustParse(memory)
			if now == id || r.has(now).MemoryLimitInBytes != want.Value() || r.shown(key) != "2 2" || r.pod(key).Status.Phase != corev1.PodRunning {
				t.Errorf("%s: after the change of memory: same container: %t, has %v, %s", policy, now == id, r.has(now), r.shown(key))
			}
		}
		if n := r.pod(key).Status.ContainerStatuses[0].RestartCount; n != 2 {
			t.Errorf("%s: restarts: %d", policy, n)
		}
	}
}

func TestResizeThatTheRuntimeRefuses(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Asks("1", "64Mi").Obj())
	id := r.containerID(key, "main")
	r.runtime.SetFault("hello:1", fake.Fault{UpdateError: "no"})
	r.resize(key, "2", "64Mi")
	if got := r.shown(key); got != "1 2 PodResizeInProgress:Error" {
		t.Errorf("status: %s", got)
	}
	r.runtime.SetFault("hello:1", fake.Fault{})
	r.pass(5 * time.Second)
	if got := r.shown(key); got != "2 2" || r.has(id).CpuQuota != 200000 {
		t.Errorf("later: %s", got)
	}
}

// TestNeverMoreThanTheNodeHas: whatever pods ask for, what is allocated fits the node, and no wish is left that would fit.
func TestNeverMoreThanTheNodeHas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		r.nodeHas("4", "8Gi")
		keys := []types.NamespacedName{}
		for _, name := range []string{"a", "b", "c"} {
			keys = append(keys, r.create(aPod(name).Asks("1", "1Gi").Obj()))
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			key := rapid.SampledFrom(keys).Draw(rt, "pod")
			r.resize(key, rapid.SampledFrom([]string{"500m", "1", "2", "3", "5"}).Draw(rt, "cpu"), "1Gi")
			r.settle(keys...)
		}
		var sum int64
		for _, key := range keys {
			quota := r.has(r.containerID(key, "main")).CpuQuota
			sum += quota
			allocated := r.pod(key).Status.ContainerStatuses[0].AllocatedResources[corev1.ResourceCPU]
			if want := allocated.MilliValue() * 100; quota != want {
				rt.Fatalf("%s has a quota of %d, %d is allocated", key.Name, quota, want)
			}
		}
		if sum > 400000 {
			rt.Fatalf("allocated: %d of 400000", sum)
		}
		for _, key := range keys {
			pod := r.pod(key)
			has := r.has(r.containerID(key, "main")).CpuQuota
			want := pod.Spec.Containers[0].Resources.Limits.Cpu().MilliValue() * 100
			if pending := podstate.FindCondition(pod.Status.Conditions, corev1.PodResizePending); (pending != nil) != (want != has) || pending != nil && sum-has+want <= 400000 {
				rt.Fatalf("%s wants %d, has %d of %d: %v", key.Name, want, has, sum, pending)
			}
		}
	})
}

func TestPodLimits(t *testing.T) {
	both := func(cpu, memory string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: amounts(cpu, memory), Limits: amounts(cpu, memory)}
	}
	for what, test := range map[string]struct {
		first, second   corev1.ResourceRequirements
		whole           *corev1.ResourceRequirements
		overhead        corev1.ResourceList
		shares, quota   int64
		memory          int64
		oom             int64
		containerMemory int64
	}{
		"best effort":        {shares: 2, quota: -1, memory: -1, oom: 1000},
		"guaranteed":         {first: both("1", "1Gi"), second: both("500m", "1Gi"), shares: 1536, quota: 150000, memory: 2 << 30, oom: -997, containerMemory: 1 << 30},
		"one without limits": {first: both("1", "1Gi"), shares: 1024, quota: -1, memory: -1, oom: 875, containerMemory: 1 << 30},
		"overhead":           {first: both("1", "1Gi"), second: both("1", "1Gi"), overhead: amounts("250m", "100Mi"), shares: 2304, quota: 225000, memory: 2<<30 + 100<<20, oom: -997, containerMemory: 1 << 30},
		"of the whole pod":   {whole: &corev1.ResourceRequirements{Requests: amounts("1", "2Gi"), Limits: amounts("2", "4Gi")}, shares: 1024, quota: 200000, memory: 4 << 30, oom: 875, containerMemory: 4 << 30},
	} {
		pod := aPod("a").Container("second").Change(func(p *pcorev1.Pod) {
			p.Spec.Containers[0].Resources, p.Spec.Containers[1].Resources = test.first, test.second
			p.Spec.Resources, p.Spec.Overhead = test.whole, test.overhead
		}).Obj()
		got := podLimits(pod, amounts("4", "8Gi"))
		if diff := cmp.Diff([]int64{test.shares, test.quota, test.memory}, []int64{got.CPUShares, got.CPUQuota, got.Memory}); diff != "" {
			t.Errorf("%s: shares, quota, memory (-want +got):\n%s", what, diff)
		}
		c := containerResources(pod, &pod.Spec.Containers[0], amounts("4", "8Gi"))
		if c.OomScoreAdj != test.oom || c.MemoryLimitInBytes != test.containerMemory {
			t.Errorf("%s: the first container: oom_score_adj %d, memory %d", what, c.OomScoreAdj, c.MemoryLimitInBytes)
		}
	}
}

func TestHugePages(t *testing.T) {
	huge := corev1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
	pod := aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: huge, Limits: huge}
	}).Obj()
	capacity := corev1.ResourceList{"hugepages-2Mi": resource.MustParse("64Mi"), "hugepages-1Gi": resource.MustParse("0")}
	if got, want := podLimits(pod, capacity).HugePages, (map[int64]int64{2 << 20: 4 << 20, 1 << 30: 0}); !cmp.Equal(got, want) {
		t.Errorf("the pod: %v", got)
	}
	got := map[string]uint64{}
	for _, l := range containerResources(pod, &pod.Spec.Containers[0], capacity).HugepageLimits {
		got[l.PageSize] = l.Limit
	}
	if want := (map[string]uint64{"2MB": 4 << 20, "1GB": 0}); !cmp.Equal(got, want) {
		t.Errorf("the container: %v", got)
	}
}
