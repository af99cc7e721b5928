// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	helper "k8s.io/component-helpers/resource"

	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// Disk is space with what takes it up.
type Disk struct{ Bytes, Inodes int64 }

func (d Disk) plus(o Disk) Disk { return Disk{d.Bytes + o.Bytes, d.Inodes + o.Inodes} }

// Usage is what one pod uses.
type Usage struct {
	// Memory is the working set in bytes, Processes their number.
	Memory, Processes int64
	Containers        []ContainerUsage
	// Volumes are the local ones by name: emptyDirs on disk, and files that the agent wrote.
	Volumes map[string]Disk
	// Other is what belongs to no container or volume: the hosts file and the like.
	Other Disk
}

// ContainerUsage is what one container uses.
type ContainerUsage struct {
	Name   string
	Memory int64
	// Root is the writable layer.
	Root, Logs Disk
}

func (u Usage) sum(roots, rest bool) Disk {
	var out Disk
	for _, c := range u.Containers {
		if roots {
			out = out.plus(c.Root)
		}
		if rest {
			out = out.plus(c.Logs)
		}
	}
	if rest {
		for _, v := range u.Volumes {
			out = out.plus(v)
		}
	}
	return out
}

// Usages are those of a node's pods. A pod of which nothing is known is not in it.
type Usages map[types.UID]Usage

// Host is what matters of the machine's layout.
type Host struct {
	// ImageFS says that images and writable layers have a file system of their own.
	ImageFS bool
}

// Critical says that a pod is never evicted.
func Critical(pod *corev1.Pod) bool {
	_, static := pod.Annotations["kubernetes.io/config.mirror"]
	return static || podstate.Priority(&pod.Spec) >= podstate.PriorityClusterCritical
}

// Rank puts the pods into the order in which they go: those above their requests first, then by priority, then by how much they use above
// their requests. For process IDs requests don't count. Pods of which nothing is known go first. The order is the same whatever
// the order of the input.
func Rank(signal Signal, pods []*corev1.Pod, usages Usages, host Host) []*corev1.Pod {
	type row struct {
		pod             *corev1.Pod
		unknown, exceed bool
		priority        int32
		above           int64
	}
	rows := make([]row, 0, len(pods))
	for _, pod := range pods {
		usage, known := usages[pod.UID]
		r := row{pod: pod, unknown: !known, priority: podstate.Priority(&pod.Spec)}
		requests := helper.PodRequests(pod, helper.PodResourcesOptions{})
		switch signal {
		case PIDAvailable:
			r.above = usage.Processes
		case MemoryAvailable, AllocatableMemory:
			r.above = usage.Memory - requests.Memory().Value()
			r.exceed = r.above > 0
		default:
			disk := usage.sum(!host.ImageFS || signal == ImageFSAvailable || signal == ImageFSInodesFree,
				!host.ImageFS || signal == NodeFSAvailable || signal == NodeFSInodesFree)
			if signal.Resource() == resourceInodes {
				// Nobody requests inodes, so that any use is above it.
				r.exceed, r.above = disk.Inodes > 0, disk.Inodes
			} else {
				r.above = disk.Bytes - requests.StorageEphemeral().Value()
				r.exceed = r.above > 0
			}
		}
		rows = append(rows, r)
	}
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	slices.SortFunc(rows, func(a, b row) int {
		if signal == PIDAvailable {
			return cmp.Or(cmp.Compare(a.priority, b.priority), first(a.unknown, b.unknown), cmp.Compare(b.above, a.above), cmp.Compare(a.pod.UID, b.pod.UID))
		}
		return cmp.Or(first(a.unknown, b.unknown), first(a.exceed, b.exceed), cmp.Compare(a.priority, b.priority), cmp.Compare(b.above, a.above),
			cmp.Compare(a.pod.UID, b.pod.UID))
	})
	out := make([]*corev1.Pod, len(rows))
	for i := range rows {
		out[i] = rows[i].pod
	}
	return out
}

// Message says why a pod was evicted, in upstream's words.
func Message(acute Threshold, pod *corev1.Pod, usages Usages, all []Threshold, readings Readings) string {
	name := acute.Signal.Resource()
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %v. ", name)
	for _, t := range all {
		if r, ok := readings[t.Signal]; ok && t.Signal.Resource() == name {
			fmt.Fprintf(&b, "Threshold quantity: %v, available: %v. ", quantityOf(t.Value.Of(r.Capacity), name), quantityOf(r.Available, name))
			break
		}
	}
	usage, known := usages[pod.UID]
	if !known {
		return b.String()
	}
	if whole := pod.Spec.Resources; whole != nil && name == corev1.ResourceMemory {
		if request, ok := whole.Requests[name]; ok {
			fmt.Fprintf(&b, "Pod %s was using %s, request is %s, has larger consumption of %v. ", pod.Name, quantityOf(usage.Memory, name), request.String(), name)
		}
	}
	for _, c := range usage.Containers {
		spec := find(pod, c.Name)
		if spec == nil {
			continue
		}
		used := c.Memory
		switch name {
		case corev1.ResourceMemory:
		case corev1.ResourceEphemeralStorage:
			used = c.Root.plus(c.Logs).Bytes
		default:
			continue
		}
		if request := spec.Resources.Requests[name]; used > request.Value() {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, quantityOf(used, name), request.String(), name)
		}
	}
	return b.String()
}

func quantityOf(n int64, name corev1.ResourceName) string {
	format := resource.BinarySI
	if name == resourceInodes || name == resourcePIDs {
		format = resource.DecimalSI
	}
	return resource.NewQuantity(n, format).String()
}

func find(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// HasLocalLimits says whether a pod has limits of local storage, so that its usage must be looked at.
func HasLocalLimits(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 && e.Medium != corev1.StorageMediumMemory {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if _, ok := list[i].Resources.Limits[corev1.ResourceEphemeralStorage]; ok {
				return true
			}
		}
	}
	return false
}

// Local says whether a pod uses more local storage than it may, and what to tell; empty when it doesn't. An emptyDir is judged first, then
// the pod, then its containers.
func Local(pod *corev1.Pod, usage Usage, host Host) string {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.Medium == corev1.StorageMediumMemory || v.EmptyDir.SizeLimit.Sign() <= 0 {
			continue
		}
		if usage.Volumes[v.Name].Bytes > v.EmptyDir.SizeLimit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	limits := helper.PodLimits(pod, helper.PodResourcesOptions{})
	if limit, ok := limits[corev1.ResourceEphemeralStorage]; ok && usage.sum(true, true).plus(usage.Other).Bytes > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for _, c := range usage.Containers {
		spec := find(pod, c.Name)
		if spec == nil {
			continue
		}
		used := c.Logs
		if !host.ImageFS {
			used = used.plus(c.Root)
		}
		if limit := spec.Resources.Limits[corev1.ResourceEphemeralStorage]; limit.Sign() > 0 && used.Bytes > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	return ""
}
