// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"github.com/go-logr/logr" //nolint:depguard // component-helpers asks for a logger; it gets one that says nothing.
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Match is how the pods of a template stand to one node. Room on the node is left out: whether a pod fits is placement's to say when
// there is a pod.
type Match struct {
	// Selected: the node is what nodeName, nodeSelector and the required node affinity ask for.
	Selected bool
	// Admitted: no taint keeps a new pod away, and the node isn't cordoned, or the pods tolerate it.
	Admitted bool
	// Kept: no NoExecute taint drives the pods away that are there already, or they tolerate it.
	Kept bool
}

// MayStart says whether a new pod of the template belongs on the node.
func (m Match) MayStart() bool { return m.Selected && m.Admitted }

// MayStay says whether a pod of the template that is on the node already may stay there.
func (m Match) MayStay() bool { return m.Selected && m.Kept }

// NodeMatcher says on which nodes the pods of one template belong, for controllers that want a pod on each of them. It is made once for
// a template, since reading the affinity costs more than asking about a node. It may be used concurrently.
type NodeMatcher struct {
	nodeName    string
	affinity    *nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

// NewNodeMatcher reads a pod's spec. It keeps parts of it, which must not be changed afterwards. An affinity that can't be
// understood matches no node, as upstream has it.
func NewNodeMatcher(spec *pcorev1.PodSpec) *NodeMatcher {
	m := &NodeMatcher{nodeName: spec.NodeName, tolerations: spec.Tolerations}
	if a := spec.Affinity; len(spec.NodeSelector) > 0 || (a != nil && a.NodeAffinity != nil) {
		required := nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, a)
		m.affinity = &required
	}
	return m
}

// Match looks at one node: its name, labels, taints and whether it is cordoned. That it isn't ready counts as far as its taints say so.
func (m *NodeMatcher) Match(node *pcorev1.Node) Match {
	out := Match{Selected: m.selects(node), Kept: true}
	out.Admitted = !node.Spec.Unschedulable || puttingUpWith(m.tolerations, &unschedulableTaint)
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule || puttingUpWith(m.tolerations, taint) {
			continue
		}
		out.Admitted = false
		if taint.Effect == corev1.TaintEffectNoExecute {
			out.Kept = false
		}
	}
	return out
}

func (m *NodeMatcher) selects(node *pcorev1.Node) bool {
	if m.nodeName != "" && m.nodeName != node.Name {
		return false
	}
	if m.affinity == nil {
		return true
	}
	view := &corev1.Node{}
	view.Name, view.Labels = node.Name, node.Labels
	ok, err := m.affinity.Match(view)
	return ok && err == nil
}

// puttingUpWith says whether one of the tolerations puts up with a taint.
func puttingUpWith(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		if Tolerates(&tolerations[i], taint) {
			return true
		}
	}
	return false
}

// Tolerates says whether a toleration matches a taint, whatever the time for which it does.
func Tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	// The comparing operators are there whether or not a version of the API lets anybody write them.
	return t.ToleratesTaint(logr.Discard(), taint, true)
}
