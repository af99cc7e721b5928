// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// scope is all that one look at a Deployment knows.
type scope struct {
	deployment *pappsv1.Deployment
	settings   settings
	// replicaSets are the Deployment's own.
	replicaSets []*pappsv1.ReplicaSet
	// pinned is what rolloutOn: Config makes of the spec's template.
	pinned revision.Pinned
	// target is what is rolled out.
	target target
	// status is what this look made of it, once it is reported.
	status *pappsv1.DeploymentStatus
	now    time.Time
	// since is when the controller began to look at Deployments.
	since time.Time
}

// plan is what to do about a Deployment. The ReplicaSets in it are copies that may be written.
type plan struct {
	// snapshots of config must be there before anything else is done.
	snapshots []revision.ConfigSnapshot
	// create is the ReplicaSet of a new revision.
	create *pappsv1.ReplicaSet
	// update are ReplicaSets as they should be, each with its state before.
	update []change
	// remove are ReplicaSets of revisions that are too old to be kept.
	remove []*pappsv1.ReplicaSet
	// deployment is the Deployment as it should be, nil when it is right; only annotations and, for a rollback, the
	// template differ.
	deployment *pappsv1.Deployment
	// estimate says whether progress is judged: not while scaling, and not while paused.
	estimate bool
}

type change struct{ before, after *pappsv1.ReplicaSet }

// set is one ReplicaSet while a plan is being made: its state, and the size that it should have.
type set struct {
	rs   *pappsv1.ReplicaSet
	size int32
	// force writes the size annotations even when the size stays.
	force bool
	// annotations and minReady are what a ReplicaSet of the newest revision should have; annotations is nil elsewhere.
	annotations map[string]string
	minReady    int32
}

func (s *set) replicas() int32 {
	if s.rs.Spec.Replicas == nil {
		return 1
	}
	return *s.rs.Spec.Replicas
}

// available is the number of the set's pods that are available and won't be deleted: the status may not have seen yet
// that the set was made smaller, and those pods are as good as gone.
func (s *set) available() int32 { return min(s.rs.Status.AvailableReplicas, s.replicas()) }

// board is the state of a plan in the making.
type board struct {
	*scope
	newest *set
	// old are the sets of all other revisions, oldest first.
	old []*set
}

// makePlan decides what one look does.
func makePlan(s *scope) (plan, error) {
	var p plan
	d := s.deployment
	var err error
	if s.target, err = aim(s); err != nil || s.target.template == nil {
		return p, err
	}
	b := layOut(s)
	switch {
	case d.DeletionTimestamp != nil:
		return p, nil
	case s.settings.paused:
		b.scale()
		p.remove = b.surplus()
	case d.Annotations[revision.RollbackAnnotation] != "":
		p.deployment = b.rollback()
		return p, nil
	case b.isScaled():
		b.scale()
	default:
		p.estimate = true
		if err := b.rollOut(&p); err != nil {
			return plan{}, err
		}
	}
	p.update = b.changes()
	if s.target.foreign {
		return p, nil // the numbers and annotations go with the spec's own revision
	}
	if p.create != nil || b.newest != nil {
		p.snapshots = s.pinned.Snapshots
	}
	if p.create == nil && b.newest != nil {
		p.deployment = numbered(d, b.newest.annotations[revision.Annotation])
	} else if p.create != nil {
		p.deployment = numbered(d, p.create.Annotations[revision.Annotation])
	}
	return p, nil
}

// rollOut takes one step from the old revisions to the new one.
func (b *board) rollOut(p *plan) error {
	if b.settings.rolling {
		return b.rollingUpdate(p)
	}
	return b.recreate(p)
}

// layOut finds the ReplicaSet whose template is the target; the oldest, should there be several.
func layOut(s *scope) *board {
	b := &board{scope: s}
	sets := slices.Clone(s.replicaSets)
	slices.SortFunc(sets, byAge)
	var rest []*pappsv1.ReplicaSet
	for _, rs := range sets {
		if b.newest == nil && s.target.template != nil && revision.Equal(&rs.Spec.Template, s.target.template) {
			b.newest = &set{rs: rs}
			continue
		}
		rest = append(rest, rs)
		b.old = append(b.old, &set{rs: rs})
	}
	for _, o := range b.all() {
		o.size, o.minReady = o.replicas(), o.rs.Spec.MinReadySeconds
	}
	if b.newest != nil {
		b.newest.annotations = b.newest.rs.Annotations
		if !s.target.foreign {
			b.newest.annotations = revision.Annotate(b.newest.rs.Annotations, s.deployment.Annotations, revision.Max(rest)+1)
		}
		b.newest.minReady = s.deployment.Spec.MinReadySeconds
	}
	return b
}

// byAge orders ReplicaSets from the oldest to the newest.
func byAge(a, b *pappsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// all are the sets of all revisions.
func (b *board) all() []*set {
	if b.newest == nil {
		return b.old
	}
	return append(slices.Clone(b.old), b.newest)
}

// active are the sets among those given that should have pods.
func active(sets []*set) []*set {
	var out []*set
	for _, s := range sets {
		if s.size > 0 {
			out = append(out, s)
		}
	}
	return out
}

// total is the number of pods that the sets should have.
func total(sets []*set) int32 {
	var n int32
	for _, s := range sets {
		n += s.size
	}
	return n
}

// changes are the ReplicaSets that aren't as they should be.
func (b *board) changes() []change {
	var out []change
	for _, s := range b.all() {
		annotations, sized := s.rs.Annotations, s.size != s.replicas()
		if s.annotations != nil {
			annotations = s.annotations
		}
		if sized || s.force {
			annotations = revision.WithSize(annotations, b.settings.replicas, b.settings.most())
		}
		if !sized && s.minReady == s.rs.Spec.MinReadySeconds && maps.Equal(annotations, s.rs.Annotations) {
			continue
		}
		after := s.rs.DeepCopy()
		after.Annotations, after.Spec.Replicas, after.Spec.MinReadySeconds = annotations, new(s.size), s.minReady
		out = append(out, change{s.rs, after})
	}
	return out
}

// makeReplicaSet makes the ReplicaSet of a new revision with that many pods.
func (b *board) makeReplicaSet(size int32) (*pappsv1.ReplicaSet, error) {
	d := b.deployment
	hash, err := revision.Hash(b.target.template, d.Status.CollisionCount)
	if err != nil {
		return nil, err
	}
	var rest []*pappsv1.ReplicaSet
	for _, s := range b.old {
		rest = append(rest, s.rs)
	}
	rs := &pappsv1.ReplicaSet{Spec: pappsv1.ReplicaSetSpec{
		Replicas:        &size,
		MinReadySeconds: d.Spec.MinReadySeconds,
		Selector:        revision.SelectorWithHash(d.Spec.Selector, hash),
		Template:        revision.WithHash(b.target.template, hash),
	}}
	rs.Namespace, rs.Name = d.Namespace, setName(d.Name, hash)
	rs.Labels = maps.Clone(rs.Spec.Template.Labels)
	rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)}
	rs.Annotations = revision.Annotate(nil, d.Annotations, revision.Max(rest)+1)
	rs.Annotations = revision.WithSize(rs.Annotations, b.settings.replicas, b.settings.most())
	return rs, nil
}

// setName is the name of the ReplicaSet of one revision, within what a name may hold.
func setName(deployment, hash string) string {
	longest := validation.DNS1123SubdomainMaxLength - len(hash) - 1
	return deployment[:min(len(deployment), longest)] + "-" + hash
}

// numbered is the Deployment with the revision number, nil when it has it already.
func numbered(d *pappsv1.Deployment, number string) *pappsv1.Deployment {
	if number == "" || d.Annotations[revision.Annotation] == number {
		return nil
	}
	out := d.DeepCopy()
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[revision.Annotation] = number
	return out
}

// surplus are the old ReplicaSets beyond the history limit that have no pods, the lowest revisions first.
func (b *board) surplus() []*pappsv1.ReplicaSet {
	if b.settings.history < 0 {
		return nil
	}
	var alive []*pappsv1.ReplicaSet
	for _, s := range b.old {
		if s.rs.DeletionTimestamp == nil && !b.target.attempt.Keeps(s.rs.Name) {
			alive = append(alive, s.rs)
		}
	}
	slices.SortFunc(alive, func(x, y *pappsv1.ReplicaSet) int {
		return cmp.Or(cmp.Compare(revision.Of(x), revision.Of(y)), byAge(x, y))
	})
	var out []*pappsv1.ReplicaSet
	for _, rs := range alive[:max(0, len(alive)-int(b.settings.history))] {
		idle := rs.Spec.Replicas != nil && *rs.Spec.Replicas == 0 && rs.Status.Replicas == 0
		if idle && rs.Generation <= rs.Status.ObservedGeneration {
			out = append(out, rs)
		}
	}
	return out
}

// rollback is the Deployment with the template of the revision that RollbackAnnotation asks for, and without the annotation.
func (b *board) rollback() *pappsv1.Deployment {
	out := b.deployment.DeepCopy()
	wanted, err := strconv.ParseInt(out.Annotations[revision.RollbackAnnotation], 10, 64)
	delete(out.Annotations, revision.RollbackAnnotation)
	if err != nil {
		return out
	}
	if wanted == 0 {
		wanted = revision.Last(b.replicaSets)
	}
	for _, rs := range b.replicaSets {
		if wanted == 0 || revision.Of(rs) != wanted || revision.Equal(&rs.Spec.Template, b.own()) {
			continue
		}
		out.Spec.Template = revision.WithoutHash(&rs.Spec.Template)
		// The annotations of a revision (a change cause) go back with it, else the old revision would get the new one's.
		maps.DeleteFunc(out.Annotations, func(k, _ string) bool { return !revision.IsOwn(k) })
		for k, v := range rs.Annotations {
			if !revision.IsOwn(k) {
				out.Annotations[k] = v
			}
		}
		break
	}
	return out
}
