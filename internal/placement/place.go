// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"hash/fnv"
	"iter"
	"sort"
	"strings"
)

// Decision is where a pod goes, or why it can't go anywhere.
type Decision struct {
	// Node is the chosen node; empty when there is none.
	Node string
	// Nodes is how many nodes there are.
	Nodes int
	// Reasons count the nodes by what speaks against them.
	Reasons map[string]int
}

// Message explains a decision without a node, in upstream's words: "0/3 nodes are available: 3 Insufficient cpu."
func (d Decision) Message() string {
	if d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	parts := make([]string, 0, len(d.Reasons))
	for reason, n := range d.Reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	sort.Strings(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, strings.Join(parts, ", "))
}

// spreadWeight is how much more keeping the pods of one owner apart counts than free room does.
const spreadWeight = 2

// Place chooses a node for a pod. It changes nothing: Assume the pod afterwards. Of nodes that are equally good, the one whose name and
// the pod's name hash highest is taken, so that a repeated decision is the same, and equal pods still spread.
func (c *Cluster) Place(r *Request) Decision {
	d := Decision{Nodes: len(c.nodes)}
	fit := make([]int, 0, len(c.nodes))
	most := 0
	others := len(c.nodes)
	for i := range c.candidates(r) {
		others--
		if reasons := c.check(r, i); reasons != nil {
			if d.Reasons == nil {
				d.Reasons = map[string]int{}
			}
			for _, reason := range reasons {
				d.Reasons[reason]++
			}
			continue
		}
		fit = append(fit, i)
		if r.Owner != "" {
			most = max(most, c.nodes[i].owners[r.Owner])
		}
	}
	if others > 0 && len(fit) == 0 {
		if d.Reasons == nil {
			d.Reasons = map[string]int{}
		}
		d.Reasons[notNamed] = others
	}
	best := -1
	var bestScore int64
	var bestHash uint64
	for _, i := range fit {
		score := c.score(r, i, most)
		if best >= 0 && score < bestScore {
			continue
		}
		hash := tie(r.Name, c.nodes[i].name)
		if best < 0 || score > bestScore || hash > bestHash || (hash == bestHash && c.nodes[i].name < c.nodes[best].name) {
			best, bestScore, bestHash = i, score, hash
		}
	}
	if best >= 0 {
		d.Node = c.nodes[best].name
	}
	return d
}

// notNamed is what speaks against the nodes that a pod's affinity doesn't name; upstream's words.
const notNamed = "node(s) didn't satisfy plugin(s) [NodeAffinity]"

// candidates are the nodes to look at: those that the pod's affinity names, or all of them.
func (c *Cluster) candidates(r *Request) iter.Seq[int] {
	return func(yield func(int) bool) {
		if r.named == nil {
			for i := range c.nodes {
				if !yield(i) {
					return
				}
			}
			return
		}
		for _, name := range r.named {
			if i, ok := c.index[name]; ok && !yield(i) {
				return
			}
		}
	}
}

// check asks the filters in order about one node.
func (c *Cluster) check(r *Request, i int) []string {
	for _, f := range Filters {
		if reasons := f.Check(c, r, i); len(reasons) > 0 {
			return reasons
		}
	}
	return nil
}

// score rates a node that the pod fits on: the more CPU and memory stay free, and the fewer pods of the same owner are there, the
// better. most is the highest number of the owner's pods on any fitting node.
func (c *Cluster) score(r *Request, i, most int) int64 {
	const full = 10000
	var free int64
	for col := range c.scored {
		if alloc := c.alloc[col][i]; alloc > 0 {
			free += max(0, (alloc-c.scored[col][i]-r.scored[col])*full/alloc)
		}
	}
	score := free / int64(len(c.scored))
	if most > 0 {
		score += spreadWeight * full * int64(most-c.nodes[i].owners[r.Owner]) / int64(most)
	}
	return score
}

func tie(pod, node string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(pod))
	h.Write([]byte{0})
	h.Write([]byte(node))
	return h.Sum64()
}
