// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// The columns of resources that every node has.
const (
	cpu = iota // in thousandths of a core
	memory
	ephemeral
	pods
	columns
)

// names of the columns, as they stand in messages.
var names = [columns]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods}

// What a pod that asks for nothing counts as when nodes are compared, so that such pods spread, too. Upstream's numbers.
const (
	emptyCPU    = 100
	emptyMemory = 200 << 20
)

// Request is what a pod asks of a node, read once from the pod.
type Request struct {
	UID types.UID
	// Name breaks ties between nodes.
	Name string
	// Owner is the UID of the pod's controller; the pods of one owner are spread. Empty when there is none.
	Owner types.UID

	amounts  [columns]int64
	extended map[corev1.ResourceName]int64
	// scored are CPU and memory with something in place of nothing.
	scored [2]int64

	// named are the only nodes that the required affinity leaves, by their names; nil when it names none.
	named       []string
	affinity    *nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
	ports       []HostPort
}

// HostPort is a port of the node that a container wants for itself.
type HostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

// NewRequest reads what a pod asks for. Init containers, sidecars, overhead and pod-level resources count as upstream counts
// them (k8s.io/component-helpers/resource).
func NewRequest(pod *pcorev1.Pod) *Request {
	native := &corev1.Pod{Spec: pod.Spec.PodSpec}
	r := &Request{UID: pod.UID, Name: pod.Namespace + "/" + pod.Name, tolerations: pod.Spec.Tolerations}
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		r.Owner = ref.UID
	}
	r.amounts[pods] = 1
	options := resource.PodResourcesOptions{}
	if resized(pod) {
		// While a resize is under way, the most of what is wished for, allocated and actuated counts, as upstream.
		native.Status = pod.Status.PodStatus
		options.UseStatusResources, options.InPlacePodLevelResourcesVerticalScalingEnabled = true, true
	}
	for name, quantity := range resource.PodRequests(native, options) {
		switch name {
		case corev1.ResourceCPU:
			r.amounts[cpu] = quantity.MilliValue()
		case corev1.ResourceMemory:
			r.amounts[memory] = quantity.Value()
		case corev1.ResourceEphemeralStorage:
			r.amounts[ephemeral] = quantity.Value()
		default:
			if r.extended == nil {
				r.extended = map[corev1.ResourceName]int64{}
			}
			r.extended[name] = quantity.Value()
		}
	}
	r.scored = [2]int64{r.amounts[cpu], r.amounts[memory]}
	if r.scored[0] == 0 {
		r.scored[0] = emptyCPU
	}
	if r.scored[1] == 0 {
		r.scored[1] = emptyMemory
	}
	if a := pod.Spec.Affinity; len(pod.Spec.NodeSelector) > 0 || (a != nil && a.NodeAffinity != nil) {
		required := nodeaffinity.GetRequiredNodeAffinity(native)
		r.affinity = &required
		r.named = namedNodes(a)
	}
	r.ports = HostPorts(&pod.Spec)
	return r
}

// resized says that a running container has been given something else than its spec asks for. Reading the status of every pod would cost
// more than all else here.
func resized(pod *pcorev1.Pod) bool {
	differs := func(spec, status corev1.ResourceList) bool {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			want, has := spec[name], status[name]
			if want.Cmp(has) != 0 {
				return true
			}
		}
		return false
	}
	of := func(containers []corev1.Container, statuses []corev1.ContainerStatus) bool {
		for i := range statuses {
			j := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == statuses[i].Name })
			if j < 0 || statuses[i].Resources == nil {
				continue
			}
			if want := containers[j].Resources.Requests; differs(want, statuses[i].Resources.Requests) || differs(want, statuses[i].AllocatedResources) {
				return true
			}
		}
		return false
	}
	if r, s := pod.Spec.Resources, pod.Status.Resources; r != nil && s != nil && differs(r.Requests, s.Requests) {
		return true
	}
	return of(pod.Spec.Containers, pod.Status.ContainerStatuses) || of(pod.Spec.InitContainers, pod.Status.InitContainerStatuses)
}

// namedNodes are the nodes that a required affinity names, each once; nil when a term of it leaves other nodes, too. Without it, each of a
// thousand daemon pods would be held against each of a thousand nodes.
func namedNodes(a *corev1.Affinity) []string {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	var out []string
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		i := slices.IndexFunc(term.MatchFields, func(f corev1.NodeSelectorRequirement) bool {
			return f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn
		})
		if i < 0 {
			return nil
		}
		out = append(out, term.MatchFields[i].Values...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// HostPorts are the ports of the node that the pod's containers, and the sidecars that run beside them, want.
func HostPorts(spec *pcorev1.PodSpec) []HostPort {
	var out []HostPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			port := HostPort{ip: p.HostIP, protocol: p.Protocol, port: p.HostPort}
			if port.ip == "" {
				port.ip = anyIP
			}
			if port.protocol == "" {
				port.protocol = corev1.ProtocolTCP
			}
			out = append(out, port)
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

const anyIP = "0.0.0.0"

// Clashes says whether two wishes can't both be had on one node.
func (p HostPort) Clashes(q HostPort) bool {
	return p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == anyIP || q.ip == anyIP)
}
