// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Filter says why a pod can't run on a node. The reasons are upstream's words, as they stand in a pod's condition.
type Filter interface {
	// Check returns the reasons against node i; none means that the pod may run there. It must not change anything.
	Check(c *Cluster, r *Request, i int) []string
}

// FilterFunc is a function that is a Filter.
type FilterFunc func(c *Cluster, r *Request, i int) []string

// Check calls the function.
func (f FilterFunc) Check(c *Cluster, r *Request, i int) []string { return f(c, r, i) }

// Filters are asked in this order; the first one that objects speaks for the node.
var Filters = []Filter{
	FilterFunc(schedulable), FilterFunc(ready), FilterFunc(tolerated), FilterFunc(selected), FilterFunc(portsFree), FilterFunc(fits),
}

var (
	unschedulableTaint = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	notReadyTaint      = corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
)

// tolerates says whether the pod puts up with a taint.
func (r *Request) tolerates(taint *corev1.Taint) bool { return puttingUpWith(r.tolerations, taint) }

// schedulable: the node isn't cordoned, or the pod doesn't mind.
func schedulable(c *Cluster, r *Request, i int) []string {
	if c.nodes[i].cordoned && !r.tolerates(&unschedulableTaint) {
		return []string{"node(s) were unschedulable"}
	}
	return nil
}

// ready: the node is ready, or the pod doesn't mind. Usually a taint says the same, but a node is seen before it has its taints.
func ready(c *Cluster, r *Request, i int) []string {
	if !c.nodes[i].ready && !r.tolerates(&notReadyTaint) {
		return []string{"node(s) were not ready"}
	}
	return nil
}

// tolerated: the pod puts up with every taint that keeps pods away.
func tolerated(c *Cluster, r *Request, i int) []string {
	taints := c.nodes[i].view.Spec.Taints
	for j := range taints {
		if taints[j].Effect != corev1.TaintEffectPreferNoSchedule && !r.tolerates(&taints[j]) {
			return []string{"node(s) had untolerated taint(s)"}
		}
	}
	return nil
}

// selected: the node's labels are what the pod's nodeSelector and required node affinity ask for.
func selected(c *Cluster, r *Request, i int) []string {
	if r.affinity == nil {
		return nil
	}
	if ok, err := r.affinity.Match(c.nodes[i].view); err != nil || !ok {
		return []string{"node(s) didn't match Pod's node affinity/selector"}
	}
	return nil
}

// portsFree: no other pod holds a port of the node that this one wants.
func portsFree(c *Cluster, r *Request, i int) []string {
	for _, want := range r.ports {
		for _, held := range c.nodes[i].ports {
			if want.Clashes(held) {
				return []string{"node(s) didn't have free ports for the requested pod ports"}
			}
		}
	}
	return nil
}

// fits: what the pod requests is free. All resources that lack are named.
func fits(c *Cluster, r *Request, i int) []string {
	var out []string
	for col := range columns {
		if r.amounts[col] == 0 || r.amounts[col] <= c.alloc[col][i]-c.used[col][i] {
			continue
		}
		if col == pods {
			out = append(out, "Too many pods")
			continue
		}
		out = append(out, fmt.Sprintf("Insufficient %s", names[col]))
	}
	n := &c.nodes[i]
	for name, amount := range r.extended {
		if amount > n.alloc[name]-n.used[name] && amount > 0 {
			out = append(out, fmt.Sprintf("Insufficient %s", name))
		}
	}
	return out
}
