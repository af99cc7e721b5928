// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// A resize goes desired (spec) → allocated (what this node gave) → actuated (what runs), as upstream's
// (KEP 1287). The agent runs a pod by what is allocated; docs/adr/0037.

// resizable are the resources that can change while a container runs.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// allocation is what a pod has been given of CPU and memory.
type allocation struct {
	// containers by name, without those that have nothing, and the whole pod where its spec has resources.
	containers map[string]corev1.ResourceRequirements
	pod        *corev1.ResourceRequirements
}

// resizeState is what is known of the resize of a pod.
type resizeState struct {
	// allocated is what the pod was given; nil before the first look at it. generation is that of the spec it was held against.
	allocated  *allocation
	generation int64
	// pending is why the spec isn't allocated: Infeasible or Deferred; the zero value when it is.
	pending podFailure
	// due says that what is allocated may not have reached the runtime and the pod's cgroup yet.
	due bool
	// failed is why what is allocated couldn't be actuated; it is tried again.
	failed startFailure
	// actuated is what running containers have, by ID, where that isn't what is allocated.
	actuated map[string]corev1.ResourceRequirements
	// restarting are the containers that were stopped to start with new resources, by ID.
	restarting map[string]bool
}

// resizeStep gives the pod's cgroup and running containers what is allocated.
type resizeStep struct {
	containers []resizeContainer
}

type resizeContainer struct {
	container *corev1.Container
	id        string
	have      corev1.ResourceRequirements
}

// computeOnly is the CPU and memory of some resources.
func computeOnly(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	pick := func(from corev1.ResourceList) corev1.ResourceList {
		var out corev1.ResourceList
		for _, name := range resizable {
			if q, ok := from[name]; ok {
				if out == nil {
					out = corev1.ResourceList{}
				}
				out[name] = q
			}
		}
		return out
	}
	return corev1.ResourceRequirements{Limits: pick(r.Limits), Requests: pick(r.Requests)}
}

func sameAmounts(a, b corev1.ResourceList) bool {
	for _, name := range resizable {
		if !sameAmount(a, b, name) {
			return false
		}
	}
	return true
}

func sameAmount(a, b corev1.ResourceList, name corev1.ResourceName) bool {
	p, q := a[name], b[name]
	return p.Cmp(q) == 0
}

func sameCompute(a, b corev1.ResourceRequirements) bool {
	return sameAmounts(a.Limits, b.Limits) && sameAmounts(a.Requests, b.Requests)
}

// allocationOf is all that a spec asks for.
func allocationOf(spec *pcorev1.PodSpec) *allocation {
	out := &allocation{}
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			out.give(list[i].Name, computeOnly(list[i].Resources))
		}
	}
	if spec.Resources != nil {
		whole := computeOnly(*spec.Resources)
		out.pod = &whole
	}
	return out
}

func (a *allocation) give(container string, r corev1.ResourceRequirements) {
	if len(r.Limits)+len(r.Requests) > 0 {
		set(&a.containers, container, r)
	} else {
		delete(a.containers, container)
	}
}

// allocationFromStatus is what an agent before this one had given: containers that have been started have what their status says they
// run with. What was allocated and not actuated by then is decided once more.
func allocationFromStatus(pod *pcorev1.Pod) *allocation {
	out := allocationOf(&pod.Spec)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if c := &list[i]; c.ContainerID != "" && c.Resources != nil {
				out.give(c.Name, computeOnly(*c.Resources))
			}
		}
	}
	if out.pod != nil && pod.Status.Resources != nil {
		have := computeOnly(*pod.Status.Resources)
		out.pod = &have
	}
	return out
}

func (a *allocation) equal(b *allocation) bool {
	if (a.pod == nil) != (b.pod == nil) || a.pod != nil && !sameCompute(*a.pod, *b.pod) {
		return false
	}
	return maps.EqualFunc(a.containers, b.containers, sameCompute)
}

// apply is the pod with what is allocated in place of what its spec asks for. The given pod isn't changed.
func (a *allocation) apply(pod *pcorev1.Pod) *pcorev1.Pod {
	out := *pod
	replace := func(r *corev1.ResourceRequirements, with corev1.ResourceRequirements) {
		*r = *r.DeepCopy()
		put := func(to *corev1.ResourceList, from corev1.ResourceList) {
			for _, name := range resizable {
				if q, ok := from[name]; ok {
					set((*map[corev1.ResourceName]resource.Quantity)(to), name, q)
				} else {
					delete(*to, name)
				}
			}
		}
		put(&r.Limits, with.Limits)
		put(&r.Requests, with.Requests)
	}
	for _, list := range []*[]corev1.Container{&out.Spec.Containers, &out.Spec.InitContainers} {
		changed := slices.Clone(*list)
		for i := range changed {
			replace(&changed[i].Resources, a.containers[changed[i].Name])
		}
		*list = changed
	}
	if a.pod != nil && out.Spec.Resources != nil {
		whole := *out.Spec.Resources
		replace(&whole, *a.pod)
		out.Spec.Resources = &whole
	}
	return &out
}

// judgeResize says whether a pod may be given what it asks for: Infeasible when the node is too small for it, Deferred when others
// have what it would take; the zero value when it fits. Upstream's words (pkg/kubelet/lifecycle).
func judgeResize(wanted, others holding, allocatable corev1.ResourceList) podFailure {
	type row struct {
		name            corev1.ResourceName
		want, used, all int64
	}
	rows := []row{
		{corev1.ResourceCPU, wanted.cpu, others.cpu, allocatable.Cpu().MilliValue()},
		{corev1.ResourceMemory, wanted.memory, others.memory, allocatable.Memory().Value()},
	}
	for _, r := range rows {
		if _, known := allocatable[r.name]; known && r.want > r.all {
			return podFailure{reason: corev1.PodReasonInfeasible, message: fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", r.name, r.want, r.all)}
		}
	}
	for _, r := range rows {
		if _, known := allocatable[r.name]; known && r.want > r.all-r.used {
			return podFailure{reason: corev1.PodReasonDeferred, message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", r.name, r.want, r.used, r.all)}
		}
	}
	return podFailure{}
}

// planResize lets running containers have what is allocated: in place, or by a restart where the container's resizePolicy asks for it.
func planResize(s situation, p *plan, sandboxID string) {
	state := &s.mem.resize
	if !state.due {
		return
	}
	step := resizeStep{}
	for _, list := range [][]corev1.Container{s.pod.Spec.InitContainers, s.pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			latest := s.latestIn(sandboxID, c.Name)
			if !latest.running() || s.mem.stopping[latest.Id] {
				continue
			}
			have, differs := state.actuated[latest.Id]
			if !differs || sameCompute(have, c.Resources) {
				continue
			}
			if needsRestart(c, have) {
				p.stopOnce(s, stopStep{container: latest, grace: gracePeriod(s.pod), message: "Container " + c.Name + " resize requires restart", resize: true})
				continue
			}
			step.containers = append(step.containers, resizeContainer{container: c, id: latest.Id, have: have})
		}
	}
	if state.failed.retryAt.After(s.now) {
		p.wakeAt(state.failed.retryAt)
		return
	}
	p.resize = &step
}

// needsRestart says that a resource changes for which the container wants to be started anew.
func needsRestart(c *corev1.Container, have corev1.ResourceRequirements) bool {
	for _, policy := range c.ResizePolicy {
		if policy.RestartPolicy != corev1.RestartContainer {
			continue
		}
		if !sameAmount(have.Limits, c.Resources.Limits, policy.ResourceName) || !sameAmount(have.Requests, c.Resources.Requests, policy.ResourceName) {
			return true
		}
	}
	return false
}

// resizeConditions say how far a resize has come; none when there is nothing to say.
func resizeConditions(s situation) []corev1.PodCondition {
	state := &s.mem.resize
	var out []corev1.PodCondition
	if why := state.pending; why.reason != "" {
		out = append(out, corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: why.reason, Message: why.message})
	}
	progress := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
	switch {
	case state.failed.message != "":
		progress.Reason, progress.Message = corev1.PodReasonError, state.failed.message
		out = append(out, progress)
	case resizing(s):
		out = append(out, progress)
	}
	return out
}

func resizing(s situation) bool {
	for _, list := range [][]corev1.Container{s.pod.Spec.InitContainers, s.pod.Spec.Containers} {
		for i := range list {
			latest := s.seen.latest(list[i].Name)
			if latest == nil {
				continue
			}
			have, known := s.mem.resize.actuated[latest.Id]
			if known && latest.running() && !sameCompute(have, list[i].Resources) || s.mem.resize.restarting[latest.Id] {
				return true
			}
		}
	}
	return false
}

// withoutResize are the conditions of before less those of a resize that is over: this agent sets them and takes them away.
func withoutResize(before, wanted []corev1.PodCondition) []corev1.PodCondition {
	over := func(c corev1.PodCondition) bool {
		return (c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress) && podstate.FindCondition(wanted, c.Type) == nil
	}
	if !slices.ContainsFunc(before, over) {
		return before
	}
	return slices.DeleteFunc(slices.Clone(before), over)
}

// showResources writes into a container's status what it has been given, and what it runs with.
func showResources(status *corev1.ContainerStatus, c *corev1.Container, latest *container, mem *memory) {
	if len(c.Resources.Requests)+len(c.Resources.Limits) == 0 {
		return
	}
	status.Resources = c.Resources.DeepCopy()
	status.AllocatedResources = c.Resources.Requests
	if latest == nil {
		return
	}
	have, known := mem.resize.actuated[latest.Id]
	if !known || sameCompute(have, c.Resources) {
		return
	}
	only := (&allocation{containers: map[string]corev1.ResourceRequirements{c.Name: have}}).apply(
		&pcorev1.Pod{Spec: pcorev1.PodSpec{PodSpec: corev1.PodSpec{Containers: []corev1.Container{*c}}}})
	status.Resources = &only.Spec.Containers[0].Resources
}

// resizeRetry is how long to wait before what failed is tried again.
func resizeRetry(before startFailure) time.Duration {
	return min(max(2*before.delay, time.Second), 30*time.Second)
}
