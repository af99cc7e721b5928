// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"path"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/placement"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// containerResources are what the kernel is told of one container, as the kubelet's generateLinuxContainerResources. A limit of the whole
// pod stands in for one that the container doesn't have.
func containerResources(pod *pcorev1.Pod, c *corev1.Container, capacity corev1.ResourceList) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{OomScoreAdj: oomScore(pod, c, capacity.Memory().Value())}
	cpuLimit, memoryLimit := limitOf(pod, c, corev1.ResourceCPU), limitOf(pod, c, corev1.ResourceMemory)
	cpu, requested := c.Resources.Requests[corev1.ResourceCPU]
	if !requested {
		cpu = cpuLimit
	}
	out.CpuShares = cgroup.Shares(cpu.MilliValue())
	out.CpuPeriod = cgroup.Period
	out.CpuQuota = cgroup.Quota(cpuLimit.MilliValue())
	out.MemoryLimitInBytes = memoryLimit.Value()
	for name := range capacity {
		if size, ok := pageSize(name); ok {
			limit := limitOf(pod, c, name)
			out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: pageName(size), Limit: uint64(limit.Value())})
		}
	}
	return out
}

func limitOf(pod *pcorev1.Pod, c *corev1.Container, name corev1.ResourceName) apiresource.Quantity {
	if limit, ok := c.Resources.Limits[name]; ok && !limit.IsZero() || pod.Spec.Resources == nil {
		return limit
	}
	return pod.Spec.Resources.Limits[name]
}

// pageSize is the size in bytes of the huge pages that a resource names.
func pageSize(name corev1.ResourceName) (int64, bool) {
	text, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
	if !ok {
		return 0, false
	}
	size, err := apiresource.ParseQuantity(text)
	return size.Value(), err == nil
}

// pageName is a size of huge pages as runtimes and cgroups write it.
func pageName(size int64) string {
	switch {
	case size >= 1<<30:
		return fmt.Sprintf("%dGB", size>>30)
	case size >= 1<<20:
		return fmt.Sprintf("%dMB", size>>20)
	}
	return fmt.Sprintf("%dKB", size>>10)
}

// oomScore says whom the kernel kills first: upstream's pkg/kubelet/qos/policy.go. memory is the machine's; 0: unknown.
func oomScore(pod *pcorev1.Pod, c *corev1.Container, memory int64) int64 {
	if podstate.Priority(&pod.Spec.PodSpec) >= podstate.PriorityNodeCritical {
		return -997
	}
	switch podstate.QOSClass(&pod.Spec.PodSpec) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	if memory == 0 {
		return 999
	}
	// What the pod requests beyond its containers is shared among them.
	var rest int64
	if r := pod.Spec.Resources; r != nil && !r.Requests.Memory().IsZero() {
		sum := resource.AggregateContainerRequests(native(pod), resource.PodResourcesOptions{})
		rest = max(0, r.Requests.Memory().Value()-sum.Memory().Value()) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
	}
	score := 1000 - 1000*(memoryRequest(c)+rest)/memory
	if podstate.IsSidecar(c) {
		// A sidecar isn't killed before what it serves.
		for i := range pod.Spec.Containers {
			score = min(score, 1000-1000*(memoryRequest(&pod.Spec.Containers[i])+rest)/memory)
		}
	}
	return min(max(score, 3), 999)
}

func memoryRequest(c *corev1.Container) int64 {
	request, ok := c.Resources.Requests[corev1.ResourceMemory]
	if !ok {
		request = c.Resources.Limits[corev1.ResourceMemory]
	}
	return request.Value()
}

// native is the pod as upstream's libraries take it.
func native(pod *pcorev1.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec.PodSpec, Status: pod.Status.PodStatus}
}

// podLimits are what the pod's own cgroup is held to, as the kubelet's ResourceConfigForPod: shares by the requests, and quota and memory by the
// limits when every container has one, or the pod has.
func podLimits(pod *pcorev1.Pod, capacity corev1.ResourceList) cgroup.Limits {
	requests := resource.PodRequests(native(pod), resource.PodResourcesOptions{})
	limits := resource.PodLimits(native(pod), resource.PodResourcesOptions{})
	out := cgroup.Limits{CPUShares: cgroup.SharesLeast, CPUQuota: cgroup.Unlimited, Memory: cgroup.Unlimited}
	if class := podstate.QOSClass(&pod.Spec.PodSpec); class != corev1.PodQOSBestEffort {
		out.CPUShares = cgroup.Shares(requests.Cpu().MilliValue())
		if limitDeclared(pod, corev1.ResourceCPU) {
			out.CPUQuota = cgroup.Quota(limits.Cpu().MilliValue())
		}
		if limitDeclared(pod, corev1.ResourceMemory) {
			out.Memory = limits.Memory().Value()
		}
	}
	for name := range capacity {
		if size, ok := pageSize(name); ok {
			if out.HugePages == nil {
				out.HugePages = map[int64]int64{}
			}
			amount := requests[name]
			out.HugePages[size] = amount.Value()
		}
	}
	return out
}

// limitDeclared says that a limit holds for all that the pod runs.
func limitDeclared(pod *pcorev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if limit := r.Limits[name]; !limit.IsZero() {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if limit := list[i].Resources.Limits[name]; limit.IsZero() {
				return false
			}
		}
	}
	return true
}

// holding is what one pod of a node has been given, or several together.
type holding struct {
	cpu, memory, ephemeral int64 // in thousandths of a core, and bytes
	pods                   int64
	burstable              bool
	// extended are all other resources, huge pages among them; ports those of the node.
	extended map[corev1.ResourceName]int64
	ports    []placement.HostPort
}

func (h *holding) add(other holding) {
	h.cpu, h.memory, h.ephemeral, h.pods = h.cpu+other.cpu, h.memory+other.memory, h.ephemeral+other.ephemeral, h.pods+other.pods
	for name, amount := range other.extended {
		set(&h.extended, name, h.extended[name]+amount)
	}
	h.ports = append(h.ports, other.ports...)
}

// ledger is what the pods of a node have been given, and who waits for more.
type ledger struct {
	mu   sync.Mutex
	held map[types.UID]holding
	// waits are the pods whose resize was deferred.
	waits map[types.UID]types.NamespacedName
	// classes says that the cgroups of the QoS classes are there; shares are the burstable one's.
	classes bool
	shares  int64
}

// hold notes what a pod has; woken are the pods that may fit now.
func (l *ledger) hold(uid types.UID, h holding) (woken []types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.held[uid]
	set(&l.held, uid, h)
	if h.cpu < before.cpu || h.memory < before.memory {
		return l.wake(uid)
	}
	return nil
}

// admit notes what a new pod has, unless judge objects to that beside what the others have. Two pods are never judged at once, so that
// of two for which there is room for one, one is taken.
func (l *ledger) admit(uid types.UID, h holding, judge func(others holding) podFailure) podFailure {
	l.mu.Lock()
	defer l.mu.Unlock()
	if why := judge(l.sum(uid)); why.reason != "" {
		return why
	}
	set(&l.held, uid, h)
	return podFailure{}
}

// release notes that a pod holds nothing any more.
func (l *ledger) release(uid types.UID) []types.NamespacedName {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waits, uid)
	if _, ok := l.held[uid]; !ok {
		return nil
	}
	delete(l.held, uid)
	return l.wake(uid)
}

func (l *ledger) wake(but types.UID) []types.NamespacedName {
	var out []types.NamespacedName
	for uid, key := range l.waits {
		if uid != but {
			out = append(out, key)
			delete(l.waits, uid)
		}
	}
	return out
}

func (l *ledger) wait(uid types.UID, key types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	set(&l.waits, uid, key)
}

// others is what all pods but one hold.
func (l *ledger) others(uid types.UID) holding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum(uid)
}

func (l *ledger) sum(but types.UID) holding {
	var sum holding
	for uid, h := range l.held {
		if uid != but {
			sum.add(h)
		}
	}
	return sum
}

func holdingOf(pod *pcorev1.Pod) holding {
	out := holding{
		pods: 1, burstable: podstate.QOSClass(&pod.Spec.PodSpec) == corev1.PodQOSBurstable, ports: placement.HostPorts(&pod.Spec),
	}
	for name, amount := range resource.PodRequests(native(pod), resource.PodResourcesOptions{}) {
		switch name {
		case corev1.ResourceCPU:
			out.cpu = amount.MilliValue()
		case corev1.ResourceMemory:
			out.memory = amount.Value()
		case corev1.ResourceEphemeralStorage:
			out.ephemeral = amount.Value()
		default:
			set(&out.extended, name, amount.Value())
		}
	}
	return out
}

// classShares keeps the CPU shares of the QoS classes: burstable pods together get what they request, those of best effort the least there
// is; as the kubelet's QOSContainerManager.
func (n *nodeState) classShares() error {
	n.ledger.mu.Lock()
	defer n.ledger.mu.Unlock()
	var milli int64
	for _, h := range n.ledger.held {
		if h.burstable {
			milli += h.cpu
		}
	}
	if !n.ledger.classes {
		if err := cgroup.Apply(path.Join(n.CgroupRoot, "besteffort"), cgroup.Limits{CPUShares: cgroup.SharesLeast}); err != nil {
			return err
		}
		n.ledger.classes = true
	}
	shares := cgroup.Shares(milli)
	if shares == n.ledger.shares {
		return nil
	}
	if err := cgroup.Apply(path.Join(n.CgroupRoot, "burstable"), cgroup.Limits{CPUShares: shares}); err != nil {
		return err
	}
	n.ledger.shares = shares
	return nil
}

// limit makes the pod's cgroup and holds it to its limits.
func (n *nodeState) limit(pod *pcorev1.Pod) error {
	if n.CgroupRoot == "" {
		return nil
	}
	if err := n.classShares(); err != nil {
		return fmt.Errorf("setting up the cgroups of the pods: %w", err)
	}
	if err := cgroup.Apply(cgroupParent(pod, &n.Node), podLimits(pod, n.Capacity)); err != nil {
		return fmt.Errorf("setting up the pod's cgroup: %w", err)
	}
	return nil
}
