// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/placement"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// scope is all that one look at a DaemonSet knows.
type scope struct {
	set      *pappsv1.DaemonSet
	settings settings
	// template is rolled out as the revision whose hash the pods carry.
	template *pcorev1.PodTemplateSpec
	target   *pappsv1.ControllerRevision
	// pinned is what rolloutOn: Config makes of the spec's template.
	pinned revision.Pinned
	// attempt judges the rollout, for onFailure.
	attempt revision.Attempt
	// elsewhere says that the target isn't what the spec asks for: a rollback is in force, or config is missing.
	elsewhere bool
	// since is when the controller began to look at DaemonSets.
	since time.Time
	// history are the set's revisions, the target among them.
	history revision.History
	nodes   []*pcorev1.Node
	// match says on which nodes the template's pods belong.
	match *placement.NodeMatcher
	// pods are the set's own, ended and deleted ones included.
	pods []*pcorev1.Pod
	// foreign are names that pods of others hold.
	foreign map[string]bool
	backoff *workload.NodeBackoff
	now     time.Time

	// places are what the above comes to; laid out when they are first asked for.
	places []*place
}

// creation is a pod to make.
type creation struct {
	node, name string
}

// plan is what to do about a DaemonSet's pods and revisions.
type plan struct {
	create []creation
	// remove are the pods to delete; replace are those of them that failed and whose node waits longer the next time.
	remove, replace []*pcorev1.Pod
	// surplus are the revisions to delete.
	surplus []*pappsv1.ControllerRevision
	// more means that something was left for the next look.
	more bool
	// wait is when a failed pod may go; 0 means that there is none.
	wait time.Duration
}

func (p *plan) idle() bool { return len(p.create)+len(p.remove) == 0 }

// place is one node and the set's pods on it, or meant for it.
type place struct {
	node string
	// exists is false for a node that is gone while pods of it are still there.
	exists bool
	match  placement.Match
	// pods stand in the order in which upstream keeps them: the placed ones first, then the oldest.
	pods []*pcorev1.Pod
}

// layOut sorts the pods by their nodes. The places come in the order of the nodes' names, so that a repeated plan is the same.
func (s *scope) layOut() []*place {
	if s.places != nil {
		return s.places
	}
	places := make([]*place, 0, len(s.nodes))
	index := make(map[string]*place, len(s.nodes))
	room := make([]place, len(s.nodes)) // one allocation for all
	for i, node := range s.nodes {
		p := &room[i]
		*p = place{node: node.Name, exists: true, match: s.match.Match(node)}
		index[node.Name] = p
		places = append(places, p)
	}
	for _, pod := range s.pods {
		if workload.IsTerminal(pod) && pod.DeletionTimestamp != nil {
			continue // over and done with; only its node's agent still has to let go of it
		}
		node, ok := workload.TargetNode(pod)
		if !ok {
			continue // adopted and not placed yet
		}
		p := index[node]
		if p == nil {
			p = &place{node: node}
			index[node] = p
			places = append(places, p)
		}
		p.pods = append(p.pods, pod)
	}
	slices.SortFunc(places, func(a, b *place) int { return cmp.Compare(a.node, b.node) })
	for _, p := range places {
		slices.SortFunc(p.pods, oldestFirst)
	}
	s.places = places
	return places
}

func oldestFirst(a, b *pcorev1.Pod) int {
	if x, y := a.Spec.NodeName != "", b.Spec.NodeName != ""; x != y {
		if x {
			return -1
		}
		return 1
	}
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// makePlan says what to do. The rules are upstream's (k8s.io/kubernetes pkg/controller/daemon): first each node by itself gets the pods that
// it should have; only when nothing is left to do there, the next pods are replaced by those of the new revision. Where the rules
// differ, docs/adr/0058 says so.
func makePlan(s *scope) (plan, error) {
	s.layOut()
	b := &board{scope: s}
	b.manage()
	if b.plan.idle() && s.settings.rolling {
		if err := b.roll(); err != nil {
			return plan{}, err
		}
	}
	b.name()
	b.plan.surplus = surplus(s)
	return b.plan, nil
}

// board is a plan in the making.
type board struct {
	*scope
	plan plan
}

// manage gives each node the pods that it should have, whatever their revision.
func (b *board) manage() {
	for _, p := range b.places {
		switch {
		case !p.exists:
			// Bound pods of a lost node are ended by controllers/node/podgc; one that waits for the node would wait for ever.
			for _, pod := range p.pods {
				if pod.Spec.NodeName == "" {
					b.remove(pod)
				}
			}
		case p.match.MayStart() && len(p.pods) == 0:
			b.create(p)
		case p.match.MayStay():
			b.tidy(p)
		default:
			for _, pod := range p.pods {
				b.remove(pod)
			}
		}
	}
}

// tidy ends what failed on a node and what is too many there.
func (b *board) tidy(p *place) {
	running := b.replaceEnded(p)
	slices.SortStableFunc(running, b.availableFirst)
	switch {
	case !b.settings.surging:
		for i := 1; i < len(running); i++ {
			b.remove(running[i])
		}
	case len(running) == 0:
		if p.match.MayStart() {
			b.create(p) // beside the ones that are ending
		}
	case len(running) > 1:
		b.thin(running)
	}
}

// replaceEnded removes the pods of a node that ended, the failed ones not too often, and returns the others that aren't deleted.
func (b *board) replaceEnded(p *place) (running []*pcorev1.Pod) {
	for _, pod := range p.pods {
		switch {
		case pod.DeletionTimestamp != nil:
		case pod.Status.Phase == corev1.PodFailed:
			if wait := b.backoff.Wait(p.node, b.now); wait > 0 {
				b.plan.wait = soonest(b.plan.wait, wait)
				continue
			}
			b.remove(pod)
			b.plan.replace = append(b.plan.replace, pod)
		case pod.Status.Phase == corev1.PodSucceeded:
			b.remove(pod)
		default:
			running = append(running, pod)
		}
	}
	return running
}

// availableFirst puts what is of use to a front that stays. Upstream goes by the age alone; pods of the same second would then stay or go by
// their names.
func (b *board) availableFirst(x, y *pcorev1.Pod) int {
	switch p, q := b.available(x), b.available(y); {
	case p == q:
		return 0
	case p:
		return -1
	}
	return 1
}

// thin leaves at most two pods on a node of a set that surges: the oldest new one, and the oldest old one as long as it is ready and the new
// one isn't available.
func (b *board) thin(running []*pcorev1.Pod) {
	var newer, older *pcorev1.Pod
	for _, pod := range running {
		keep := &older
		if b.isNew(pod) {
			keep = &newer
		}
		if *keep == nil {
			*keep = pod
		} else {
			b.remove(pod)
		}
	}
	if newer != nil && older != nil && (!workload.IsReady(older) || b.available(newer)) {
		b.remove(older)
	}
}

// create plans a pod for a node; name gives it its name.
func (b *board) create(p *place) {
	if len(b.plan.create) >= workload.Burst {
		b.plan.more = true
		return
	}
	b.plan.create = append(b.plan.create, creation{node: p.node})
}

func (b *board) remove(pod *pcorev1.Pod) {
	switch {
	case pod.DeletionTimestamp != nil:
	case len(b.plan.remove) >= workload.Burst:
		b.plan.more = true
	default:
		b.plan.remove = append(b.plan.remove, pod)
	}
}

// name gives the planned pods names that nobody holds. A pod that ended or is terminating still holds its name.
func (b *board) name() {
	if len(b.plan.create) == 0 {
		return
	}
	taken := make(map[string]bool, len(b.pods)+len(b.plan.create)+len(b.foreign))
	for _, pod := range b.pods {
		taken[pod.Name] = true
	}
	for name := range b.foreign {
		taken[name] = true
	}
	for i := range b.plan.create {
		c := &b.plan.create[i]
		c.name = workload.NodePodName(b.set.Name, b.set.UID, c.node, taken)
		taken[c.name] = true
	}
}

// isNew says whether a pod is of the revision that is rolled out.
func (s *scope) isNew(pod *pcorev1.Pod) bool {
	return pod.Labels[revision.PodRevisionLabel] == s.hash()
}

// hash is what the pods of the revision that is rolled out carry in their label.
func (s *scope) hash() string { return s.target.Labels[revision.PodRevisionLabel] }

func (s *scope) available(pod *pcorev1.Pod) bool {
	ok, _ := workload.Availability(pod, s.settings.minReady, s.now)
	return ok
}

// surplus are the revisions beyond the history limit, the oldest first. A revision that has pods counts against the limit and stays, as upstream has
// it.
func surplus(s *scope) []*pappsv1.ControllerRevision {
	hashes := make(map[string]bool, 2)
	for _, pod := range s.pods {
		hashes[pod.Labels[revision.PodRevisionLabel]] = true
	}
	limit := s.settings.history
	live := func(rev *pappsv1.ControllerRevision) bool {
		return rev.Name == s.target.Name || s.attempt.Keeps(rev.Name) || hashes[rev.Labels[revision.PodRevisionLabel]]
	}
	for _, rev := range s.history {
		if rev.Name != s.target.Name && live(rev) {
			limit--
		}
	}
	return s.history.Surplus(max(0, limit), live)
}

func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
