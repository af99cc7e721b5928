// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// Cluster is what is known about nodes and the pods on them. It is brought up to date change by change; a pod that was assumed
// on a node counts there like one that is bound. It is not safe for concurrent use.
type Cluster struct {
	index map[string]int
	nodes []node
	// alloc and used are columns: for each resource, a number for each node.
	alloc, used [columns][]int64
	// scored is what the pods on each node count as when nodes are compared.
	scored [2][]int64
	pods   map[types.UID]bound
}

// node is what doesn't fit into a column of numbers.
type node struct {
	name     string
	view     *corev1.Node // labels, taints and name, as affinity wants to see them
	ready    bool
	cordoned bool
	alloc    map[corev1.ResourceName]int64 // of extended resources
	used     map[corev1.ResourceName]int64
	owners   map[types.UID]int
	ports    []HostPort
}

type bound struct {
	request *Request
	node    string
	assumed bool
}

// NewCluster makes an empty cluster.
func NewCluster() *Cluster {
	return &Cluster{index: map[string]int{}, pods: map[types.UID]bound{}}
}

// Size is the number of nodes.
func (c *Cluster) Size() int { return len(c.nodes) }

// SetNode adds a node or brings it up to date. It returns whether anything changed that placement looks at.
func (c *Cluster) SetNode(obj *pcorev1.Node) (changed bool) {
	i, known := c.index[obj.Name]
	if !known {
		i = len(c.nodes)
		c.index[obj.Name] = i
		c.nodes = append(c.nodes, node{name: obj.Name, used: map[corev1.ResourceName]int64{}, owners: map[types.UID]int{}})
		for col := range columns {
			c.alloc[col], c.used[col] = append(c.alloc[col], 0), append(c.used[col], 0)
		}
		for col := range c.scored {
			c.scored[col] = append(c.scored[col], 0)
		}
		for _, b := range c.pods { // pods that came before their node
			if b.node == obj.Name {
				c.count(i, b.request, 1)
			}
		}
	}
	return c.refresh(i, obj) || !known
}

// refresh reads a node into its columns.
func (c *Cluster) refresh(i int, obj *pcorev1.Node) (changed bool) {
	n := &c.nodes[i]
	ready := false
	for j := range obj.Status.Conditions {
		if cond := &obj.Status.Conditions[j]; cond.Type == corev1.NodeReady {
			ready = cond.Status == corev1.ConditionTrue
		}
	}
	view := &corev1.Node{}
	view.Name, view.Labels, view.Spec.Taints = obj.Name, obj.Labels, obj.Spec.Taints
	extended := map[corev1.ResourceName]int64{}
	var amounts [columns]int64
	for name, quantity := range obj.Status.Allocatable {
		switch col := slices.Index(names[:], name); {
		case col == cpu:
			amounts[cpu] = quantity.MilliValue()
		case col >= 0:
			amounts[col] = quantity.Value()
		default:
			extended[name] = quantity.Value()
		}
	}
	changed = n.view == nil || n.ready != ready || n.cordoned != obj.Spec.Unschedulable || !maps.Equal(n.alloc, extended) ||
		!maps.Equal(n.view.Labels, view.Labels) || !equality.Semantic.DeepEqual(n.view.Spec.Taints, view.Spec.Taints)
	for col := range columns {
		changed = changed || c.alloc[col][i] != amounts[col]
		c.alloc[col][i] = amounts[col]
	}
	n.view, n.ready, n.cordoned, n.alloc = view, ready, obj.Spec.Unschedulable, extended
	return changed
}

// RemoveNode forgets a node. Its pods are remembered, should it come back.
func (c *Cluster) RemoveNode(name string) {
	i, ok := c.index[name]
	if !ok {
		return
	}
	last := len(c.nodes) - 1
	c.nodes[i] = c.nodes[last]
	c.index[c.nodes[i].name] = i
	delete(c.index, name)
	c.nodes = slices.Delete(c.nodes, last, last+1)
	for col := range columns {
		c.alloc[col] = cutColumn(c.alloc[col], i)
		c.used[col] = cutColumn(c.used[col], i)
	}
	for col := range c.scored {
		c.scored[col] = cutColumn(c.scored[col], i)
	}
}

// cutColumn takes a row out by moving the last one to its place.
func cutColumn(column []int64, i int) []int64 {
	last := len(column) - 1
	column[i] = column[last]
	return column[:last]
}

// HasNode says whether a node of that name is known.
func (c *Cluster) HasNode(name string) bool {
	_, ok := c.index[name]
	return ok
}

// SetPod notes that a pod runs on a node, in place of what was known about it before.
func (c *Cluster) SetPod(r *Request, nodeName string) { c.put(bound{request: r, node: nodeName}) }

// Assume counts a pod on a node before the API server knows.
func (c *Cluster) Assume(r *Request, nodeName string) {
	c.put(bound{request: r, node: nodeName, assumed: true})
}

// Forget takes an assumption back. A pod that is known to be bound stays.
func (c *Cluster) Forget(uid types.UID) {
	if b, ok := c.pods[uid]; ok && b.assumed {
		c.RemovePod(uid)
	}
}

// NodeOf returns the node that a pod is bound to or assumed on.
func (c *Cluster) NodeOf(uid types.UID) (name string, ok bool) {
	b, ok := c.pods[uid]
	return b.node, ok
}

func (c *Cluster) put(b bound) {
	c.RemovePod(b.request.UID)
	c.pods[b.request.UID] = b
	if i, ok := c.index[b.node]; ok {
		c.count(i, b.request, 1)
	}
}

// RemovePod forgets a pod. It returns whether that made room on a node.
func (c *Cluster) RemovePod(uid types.UID) bool {
	b, ok := c.pods[uid]
	if !ok {
		return false
	}
	delete(c.pods, uid)
	i, ok := c.index[b.node]
	if ok {
		c.count(i, b.request, -1)
	}
	return ok
}

// count adds a pod to a node's columns, or takes it out when sign is -1.
func (c *Cluster) count(i int, r *Request, sign int64) {
	for col := range columns {
		c.used[col][i] += sign * r.amounts[col]
	}
	for col := range c.scored {
		c.scored[col][i] += sign * r.scored[col]
	}
	n := &c.nodes[i]
	for name, amount := range r.extended {
		n.used[name] += sign * amount
	}
	if r.Owner != "" {
		if n.owners[r.Owner] += int(sign); n.owners[r.Owner] == 0 {
			delete(n.owners, r.Owner)
		}
	}
	if sign > 0 {
		n.ports = append(n.ports, r.ports...)
		return
	}
	for _, p := range r.ports {
		if j := slices.Index(n.ports, p); j >= 0 {
			n.ports = slices.Delete(n.ports, j, j+1)
		}
	}
}
