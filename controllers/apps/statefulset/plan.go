// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// scope is all that one look at a StatefulSet knows.
type scope struct {
	set      *pappsv1.StatefulSet
	settings settings
	selector labels.Selector
	// history are the set's revisions; current and update are the two that its pods are made from.
	history         revision.History
	current, update release
	// third is the last other revision that was read, because its neighbours are likely to be of it, too.
	third release
	// pinned is what rolloutOn: Config makes of the spec's template.
	pinned revision.Pinned
	// since is when the controller began to look at StatefulSets.
	since time.Time
	// attempt is the try to roll the update out, which onFailure judges.
	attempt revision.Attempt
	// pods are the set's own, ended and deleted ones included; each has an ordinal, and no two the same.
	pods []*pcorev1.Pod
	// claims are those of the pods that are there or should be, by name.
	claims map[string]*pcorev1.PersistentVolumeClaim
	// expandable says of the classes of claims that should grow whether they allow it.
	expandable map[string]bool
	now        time.Time
}

// plan is what to do about a StatefulSet.
type plan struct {
	// stages follow one another; a failure ends the plan.
	stages []stage
	// blocked says why a pod can't be made now, in one sentence.
	blocked string
	// more says that there is more to do than one look should.
	more bool
}

// stage is a list of tasks.
type stage struct {
	tasks []task
	// parallel says that the order of the tasks doesn't matter.
	parallel bool
}

// task is what is done about one pod: first its claims, then the pod itself.
type task struct {
	claims claimWork
	// create is the pod to make.
	create *pcorev1.Pod
	// relabel are the states before and after of a pod that lost its identity.
	before, after *pcorev1.Pod
	// remove is the pod to delete.
	remove *pcorev1.Pod
}

func (t *task) none() bool {
	return t.claims.none() && t.create == nil && t.after == nil && t.remove == nil
}

// slot is one wanted pod.
type slot struct {
	ordinal int
	// pod is nil while there is none.
	pod *pcorev1.Pod
	// removed says that this plan deletes the pod.
	removed bool
}

// board is the state of a plan in the making.
type board struct {
	*scope
	// slots are the wanted pods in ordinal order, condemned those beyond them, the highest ordinal first.
	slots     []slot
	condemned []*pcorev1.Pod
	plan      plan
}

// makePlan decides what one look does. A set that is being deleted leaves its pods to garbage collection.
func makePlan(s *scope) plan {
	if s.set.DeletionTimestamp != nil {
		return plan{}
	}
	b := layOut(s)
	if b.keep() {
		b.retain()
		if b.scaleDown() && s.settings.rolling {
			b.rollOut()
		}
	}
	b.unblock()
	return b.plan
}

// layOut sorts the pods into those that are wanted and those that aren't.
func layOut(s *scope) *board {
	b := &board{scope: s, slots: make([]slot, s.settings.replicas)}
	for i := range b.slots {
		b.slots[i].ordinal = s.settings.start + i
	}
	for _, pod := range s.pods {
		ordinal := ordinalOf(s.set.Name, pod.Name)
		switch {
		case ordinal < 0:
		case s.inRange(ordinal):
			b.slots[ordinal-s.settings.start].pod = pod
		default:
			b.condemned = append(b.condemned, pod)
		}
	}
	slices.SortFunc(b.condemned, func(x, y *pcorev1.Pod) int {
		return cmp.Compare(ordinalOf(s.set.Name, y.Name), ordinalOf(s.set.Name, x.Name))
	})
	return b
}

// releaseFor is the revision that a pod of that ordinal is made from.
func (s *scope) releaseFor(ordinal int) release {
	if s.settings.rolling && ordinal < s.settings.updateFrom {
		return s.current
	}
	return s.update
}

// releaseOf is the revision that a pod was made from; of one that is forgotten, the revision that it should have.
func (s *scope) releaseOf(pod *pcorev1.Pod, ordinal int) release {
	name := revisionOf(pod)
	for _, r := range []release{s.update, s.current, s.third} {
		if r.name == name {
			return r
		}
	}
	if rev := s.history.Named(name); rev != nil {
		if snapshot, err := revision.Read(rev); err == nil {
			s.third = release{rev.Name, snapshot}
			return s.third
		}
	}
	return s.releaseFor(ordinal)
}

// keep makes the pods that are missing and replaces those that ended, in ordinal order. It returns whether the plan may go on to the
// pods that aren't wanted: with OrderedReady, when all pods are available.
func (b *board) keep() bool {
	st := stage{parallel: !b.settings.ordered}
	on := true
	creations := 0
	for i := range b.slots {
		t, wait := b.keepOne(&b.slots[i])
		if t.create != nil {
			creations++
		}
		if !t.none() {
			st.tasks = append(st.tasks, t)
		}
		if wait && b.settings.ordered {
			on = false
			break
		}
		if creations == workload.Burst {
			b.plan.more, on = true, false
			break
		}
	}
	b.add(st)
	return on
}

// keepOne plans one wanted pod. wait says that its successors must wait for it.
func (b *board) keepOne(s *slot) (t task, wait bool) {
	pod := s.pod
	switch {
	case pod == nil:
		rev := b.releaseFor(s.ordinal)
		t.claims = b.claimsFor(rev, s.ordinal, nil, true)
		if t.claims.blocked != "" {
			b.block(t.claims.blocked)
			t.claims.create = nil
			return t, true
		}
		t.create = makePod(b.set, rev, s.ordinal)
		return t, true
	case workload.IsTerminal(pod):
		// However it ended: a pod that was evicted or survived a restart of its node may well have succeeded.
		if pod.DeletionTimestamp == nil {
			t.remove, s.removed = pod, true
		}
		return t, true
	}
	pending := pod.Status.Phase == "" || pod.Status.Phase == "Pending"
	t.claims = b.claimsFor(b.releaseOf(pod, s.ordinal), s.ordinal, pod, pending)
	if pending && t.claims.blocked != "" {
		b.block(t.claims.blocked)
	}
	if pod.DeletionTimestamp != nil || !isReady(pod) || !b.isAvailable(pod) {
		wait = true
	}
	if !wait || !b.settings.ordered {
		if after := repaired(pod, s.ordinal); after != nil {
			t.before, t.after = pod, after
		}
	}
	return t, wait
}

// retain gives the claims of pods that aren't wanted to those who should take them along.
func (b *board) retain() {
	st := stage{parallel: !b.settings.ordered}
	for _, pod := range b.condemned {
		ordinal := ordinalOf(b.set.Name, pod.Name)
		t := task{claims: b.claimsFor(b.releaseOf(pod, ordinal), ordinal, pod, false)}
		if !t.none() {
			st.tasks = append(st.tasks, t)
		}
	}
	b.add(st)
}

// scaleDown deletes the pods that aren't wanted: with OrderedReady one at a time, the highest ordinal first, each only when all others
// are available, except that the one that isn't may go, and what ended or never was ready. It returns whether the plan may go on to the update.
func (b *board) scaleDown() bool {
	if b.settings.ordered {
		return b.scaleDownInOrder()
	}
	st := stage{parallel: true}
	for _, pod := range b.condemned {
		if pod.DeletionTimestamp == nil {
			st.tasks = append(st.tasks, task{remove: pod})
		}
	}
	b.add(st)
	return true
}

func (b *board) scaleDownInOrder() bool {
	if len(b.condemned) == 0 {
		return true
	}
	highest := b.condemned[0]
	if highest.DeletionTimestamp != nil {
		return false
	}
	// All wanted pods are available here, so the first that isn't up is one of those beyond, the lowest of them. What ended isn't waited
	// for: nobody replaces a pod that isn't wanted.
	var firstDown *pcorev1.Pod
	for _, pod := range slices.Backward(b.condemned) {
		if !b.isUp(pod) && !workload.IsTerminal(pod) {
			firstDown = pod
			break
		}
	}
	// What serves nobody may go whatever the others do; docs/adr/0057.
	useless := workload.IsTerminal(highest) || wasNeverReady(highest)
	if b.isUp(highest) && isReady(highest) || highest == firstDown || useless {
		b.add(stage{tasks: []task{{remove: highest}}})
	}
	return false
}

func (b *board) add(st stage) {
	if len(st.tasks) > 0 {
		b.plan.stages = append(b.plan.stages, st)
	}
}

func (b *board) block(why string) {
	if b.plan.blocked == "" {
		b.plan.blocked = why
	}
}

// String makes a plan readable in a failing test.
func (p plan) String() string {
	var out []string
	for _, st := range p.stages {
		for _, t := range st.tasks {
			for _, c := range t.claims.create {
				out = append(out, "+"+c.Name)
			}
			for _, c := range t.claims.update {
				out = append(out, "~"+c.after.Name)
			}
			switch {
			case t.create != nil:
				out = append(out, "+"+t.create.Name+"@"+revisionOf(t.create))
			case t.after != nil:
				out = append(out, "~"+t.after.Name)
			case t.remove != nil:
				out = append(out, "-"+t.remove.Name)
			}
		}
		out = append(out, ";")
	}
	return fmt.Sprint(out)
}
