// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"cmp"
	"fmt"
	"slices"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// target is what one look rolls out. Without the extensions it is the spec's template and nothing else.
type target struct {
	// template is rolled out; nil when nothing can be, because the config that it needs isn't there.
	template *pcorev1.PodTemplateSpec
	// foreign says that it isn't the spec's own template: a rollback is in force, or the config for the spec's isn't there.
	foreign bool
	// rollback is the automatic rollback that is in force, nil when there is none.
	rollback *pappsv1.RollbackStatus
	// attempt judges the rollout.
	attempt revision.Attempt
}

// aim decides which template is rolled out: that of a rollback in force; else the spec's; else, while config is missing, the newest that
// there was.
func aim(s *scope) (target, error) {
	d := s.deployment
	t := target{attempt: revision.Attempt{
		Spec: d.Spec.RolloutSpec, Status: d.Status.RolloutStatus, Generation: d.Generation,
		Deadline: s.settings.deadline, Since: s.since, Paused: s.settings.paused || s.pinned.Missing != nil,
		Exists: func(name string) bool { return s.find(name) != nil },
	}}
	if d.Spec.OnFailure != "" && s.pinned.Missing == nil {
		intent, err := makeIntent(s)
		if err != nil {
			return target{}, err
		}
		t.attempt.Intent = intent
	}
	switch t.rollback = t.attempt.InForce(); {
	case t.rollback != nil:
		t.foreign = true
		t.template = &s.find(t.rollback.Revision).Spec.Template
	case s.pinned.Missing != nil:
		t.foreign = true
		if len(s.replicaSets) > 0 {
			t.template = &slices.MaxFunc(s.replicaSets, byNumber).Spec.Template
		}
	default:
		t.template = s.own()
	}
	return t, nil
}

// own is the spec's template, with its config pinned under rolloutOn: Config.
func (s *scope) own() *pcorev1.PodTemplateSpec {
	return s.pinned.Or(&s.deployment.Spec.Template)
}

// find returns the ReplicaSet of that name, nil when it isn't there or goes.
func (s *scope) find(name string) *pappsv1.ReplicaSet {
	for _, rs := range s.replicaSets {
		if rs.Name == name && rs.DeletionTimestamp == nil {
			return rs
		}
	}
	return nil
}

func byNumber(a, b *pappsv1.ReplicaSet) int {
	return cmp.Or(cmp.Compare(revision.Of(a), revision.Of(b)), byAge(a, b))
}

// makeIntent names what the user asks for, but for the size and the pause.
func makeIntent(s *scope) (string, error) {
	spec := s.deployment.Spec
	spec.Replicas, spec.Paused, spec.Template = nil, false, *s.own()
	intent, err := revision.Intent(spec)
	if err != nil {
		return "", fmt.Errorf("naming what the Deployment asks for: %w", err)
	}
	return intent, nil
}
