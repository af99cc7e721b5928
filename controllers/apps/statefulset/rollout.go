// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// release is a revision that pods are made from.
type release struct {
	// name is the ControllerRevision's.
	name string
	revision.Snapshot
}

// claimTemplates are the set's claim templates that the revision knows. Pods of a revision from before a template was added don't get its
// volume, so that going back doesn't wait for a claim that can't be made.
func (r release) claimTemplates(set *pappsv1.StatefulSet) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		if r.Claims == nil || slices.Contains(r.Claims, t.Name) {
			out = append(out, t)
		}
	}
	return out
}

// aim is what one look rolls out.
type aim struct {
	revision.Snapshot
	// foreign says that it isn't what the spec asks for: a rollback is in force, or the config for what the spec asks isn't there.
	foreign bool
}

// target decides what is rolled out: what a rollback in force went back to; else, while config is missing, what was rolled out last; else
// what the spec asks for.
func (s *scope) target() (aim, error) {
	rev := (*pappsv1.ControllerRevision)(nil)
	switch back := s.attempt.InForce(); {
	case back != nil:
		rev = s.history.Named(back.Revision)
	case s.pinned.Missing == nil:
		return aim{Snapshot: s.own()}, nil
	default:
		rev = s.history[len(s.history)-1]
	}
	snapshot, err := revision.Read(rev)
	if err != nil {
		return aim{}, fmt.Errorf("going back: %w", err)
	}
	return aim{snapshot, true}, nil
}

// own is what the spec asks for, with its config pinned under rolloutOn: Config.
func (s *scope) own() revision.Snapshot {
	return revision.Snapshot{Template: s.pinned.Or(&s.set.Spec.Template), Claims: claimNames(s.set)}
}

// makeAttempt describes the try to roll the spec out, for onFailure.
func makeAttempt(s *scope) (revision.Attempt, error) {
	a := revision.Attempt{
		Spec: s.set.Spec.RolloutSpec, Status: s.set.Status.RolloutStatus, Generation: s.set.Generation, Deadline: s.settings.deadline, Since: s.since,
		Exists: func(name string) bool { return s.history.Named(name) != nil },
	}
	if s.set.Spec.OnFailure == "" || s.pinned.Missing != nil {
		return a, nil
	}
	spec := s.set.Spec // shallow: fields are replaced, nothing is written through
	spec.Replicas, spec.Template = nil, *s.own().Template
	var err error
	if a.Intent, err = revision.Intent(spec); err != nil {
		return a, fmt.Errorf("naming what the StatefulSet asks for: %w", err)
	}
	return a, nil
}

// historyOwner is the set as the owner of its history.
func historyOwner(set *pappsv1.StatefulSet) revision.HistoryOwner {
	return revision.HistoryOwner{Object: set, Kind: kind, HashLabel: revision.HistoryHashLabel}
}

// findCurrent returns the revision that the set was complete in last; the newest while there is none.
func (s *scope) findCurrent() (release, error) {
	rev := s.history.Named(s.set.Status.CurrentRevision)
	if rev == nil || rev.Name == s.update.name {
		return s.update, nil
	}
	snapshot, err := revision.Read(rev)
	if err != nil {
		return release{}, fmt.Errorf("reading the current revision: %w", err)
	}
	return release{rev.Name, snapshot}, nil
}

// isLive returns whether a revision is still needed, whatever the history limit is. current is the current revision's name.
func (s *scope) isLive(current string) func(*pappsv1.ControllerRevision) bool {
	names := map[string]bool{current: true, s.update.name: true}
	for _, pod := range s.pods {
		names[revisionOf(pod)] = true
	}
	return func(rev *pappsv1.ControllerRevision) bool { return names[rev.Name] || s.attempt.Keeps(rev.Name) }
}

// templates are those of all revisions that are kept, for clearing away the snapshots of config that none of them needs. An error means that
// one can't be read, and then nothing may be cleared away.
func (s *scope) templates() ([]*pcorev1.PodTemplateSpec, error) {
	out := []*pcorev1.PodTemplateSpec{s.pinned.Template}
	for _, rev := range s.history {
		snapshot, err := revision.Read(rev)
		if err != nil {
			return nil, err
		}
		out = append(out, snapshot.Template)
	}
	return out, nil
}
