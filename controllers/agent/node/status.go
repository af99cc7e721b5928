// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// facts is what a status follows from, beside the Node object.
type facts struct {
	node           *Node
	runtime        *runtimeapi.RuntimeStatus
	runtimeVersion string
	runtimeError   error
	pressure       Pressure
	pressureError  error
	down           bool
}

// makeStatus computes the node's status; conditions of other writers are kept.
func makeStatus(object *pcorev1.Node, f facts, now time.Time) pcorev1.NodeStatus {
	old := &object.Status
	out := pcorev1.NodeStatus{NodeStatus: *old.NodeStatus.DeepCopy(), ObservedGeneration: object.Generation}
	out.Addresses = f.node.Addresses
	out.Capacity = f.node.Capacity
	out.Allocatable = Allocatable(f.node.Capacity, f.node.Reserved)
	out.DaemonEndpoints.KubeletEndpoint.Port = f.node.ServerPort
	out.NodeInfo = f.node.Info
	if f.node.Images != nil {
		if images := f.node.Images(); images != nil {
			out.Images = images // Until they are known, those of before a restart hold.
		}
	}
	out.NodeInfo.ContainerRuntimeVersion = f.runtimeVersion
	if f.runtimeVersion == "" {
		out.NodeInfo.ContainerRuntimeVersion = old.NodeInfo.ContainerRuntimeVersion
	}
	for _, c := range conditions(f) {
		setCondition(&out.Conditions, c, now)
	}
	out.Columns = pcorev1.Columns{"status": statusColumn(object, &out), "roles": rolesColumn(object)}
	return out
}

func conditions(f facts) []corev1.NodeCondition {
	out := []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, f.pressure.Memory, "KubeletHasSufficientMemory", "KubeletHasInsufficientMemory", "available memory"),
		pressure(corev1.NodeDiskPressure, f.pressure.Disk, "KubeletHasNoDiskPressure", "KubeletHasDiskPressure", "free disk space"),
		pressure(corev1.NodePIDPressure, f.pressure.PIDs, "KubeletHasSufficientPID", "KubeletHasInsufficientPID", "free process IDs"),
	}
	network := corev1.NodeCondition{
		Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "NetworkReady", Message: "the network of the node's pods is set up",
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady", Message: "the agent is posting ready status"}
	switch {
	case f.down:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "AgentNotReady", "node is shutting down"
	case f.runtimeError != nil:
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "RuntimeNotReady", "container runtime doesn't answer: "+f.runtimeError.Error()
	default:
		for _, c := range f.runtime.GetConditions() {
			if c.Status {
				continue
			}
			switch c.Type {
			case runtimeapi.RuntimeReady:
				ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "RuntimeNotReady", "container runtime is not ready: "+c.Message
			case runtimeapi.NetworkReady:
				network.Status, network.Reason, network.Message = corev1.ConditionTrue, "NetworkNotReady", c.Message
				if ready.Status == corev1.ConditionTrue {
					ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "NetworkNotReady", "container runtime network not ready: "+c.Message
				}
			}
		}
	}
	if f.pressureError != nil && ready.Status == corev1.ConditionTrue {
		ready.Message += "; what the machine lacks is not known: " + f.pressureError.Error()
	}
	return append(out, network, ready)
}

func pressure(kind corev1.NodeConditionType, lacking bool, fine, short, what string) corev1.NodeCondition {
	if lacking {
		return corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Reason: short, Message: "the node is short of " + what}
	}
	return corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: fine, Message: "the node has enough " + what}
}

// setCondition puts a condition in, with its times. The heartbeat is when it was last computed.
func setCondition(list *[]corev1.NodeCondition, c corev1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = metav1.NewTime(now.Truncate(time.Second))
	c.LastTransitionTime = c.LastHeartbeatTime
	for i, old := range *list {
		if old.Type == c.Type {
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			(*list)[i] = c
			return
		}
	}
	*list = append(*list, c)
}

// Allocatable is what is left of the capacity for pods; upstream's name for it. Memory that stands in huge pages is no other pod's.
func Allocatable(capacity, reserved corev1.ResourceList) corev1.ResourceList {
	out := capacity.DeepCopy()
	for name, q := range reserved {
		if have, ok := out[name]; ok {
			have.Sub(q)
			if have.Sign() < 0 {
				have.Set(0)
			}
			out[name] = have
		}
	}
	memory, ok := out[corev1.ResourceMemory]
	for name, q := range out {
		if ok && strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			memory.Sub(q)
		}
	}
	if ok {
		if memory.Sign() < 0 {
			memory.Set(0)
		}
		out[corev1.ResourceMemory] = memory
	}
	return out
}

// statusColumn is kubectl's STATUS: Ready, NotReady or Unknown, with SchedulingDisabled for a cordoned node.
func statusColumn(object *pcorev1.Node, status *pcorev1.NodeStatus) string {
	text := "Unknown"
	for _, c := range status.Conditions {
		if c.Type == corev1.NodeReady {
			text = "NotReady"
			if c.Status == corev1.ConditionTrue {
				text = "Ready"
			}
		}
	}
	if object.Spec.Unschedulable {
		text += ",SchedulingDisabled"
	}
	return text
}

// rolesColumn is kubectl's ROLES, from the labels node-role.kubernetes.io/ROLE and kubernetes.io/role.
func rolesColumn(object *pcorev1.Node) string {
	var roles []string
	for key, value := range object.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		} else if key == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	if len(roles) == 0 {
		return "<none>"
	}
	slices.Sort(roles)
	return strings.Join(slices.Compact(roles), ",")
}

// sameStatus compares without heartbeats, which change at every look.
func sameStatus(wanted, now *pcorev1.NodeStatus) bool {
	a, b := wanted.DeepCopy(), now.DeepCopy()
	for _, list := range [][]corev1.NodeCondition{a.Conditions, b.Conditions} {
		for i := range list {
			list[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(a, b)
}

func isReady(status *pcorev1.NodeStatus) bool {
	return slices.ContainsFunc(status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func lastHeartbeat(status *pcorev1.NodeStatus) time.Time {
	for _, c := range status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.LastHeartbeatTime.Time
		}
	}
	return time.Time{}
}
