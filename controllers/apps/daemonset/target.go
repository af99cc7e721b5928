// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"maps"
	"strconv"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// generationLabel numbers the templates of a DaemonSet on its pods. Upstream counts the changes of the template in an annotation, which only its
// API server can keep; the number of the revision is the same number, unless two changes follow each other faster than the controller looks.
const generationLabel = "pod-template-generation"

// own is the spec's template, with its config pinned under rolloutOn: Config.
func (s *scope) own() *pcorev1.PodTemplateSpec { return s.pinned.Or(&s.set.Spec.Template) }

// aim says that the newest revision is to be rolled out, which holds the template of the spec.
func (s *scope) aim(history revision.History, newest *pappsv1.ControllerRevision) {
	s.aimAt(history, newest, s.own())
}

// aimAt says what is to be rolled out: a revision, and the template that it holds.
func (s *scope) aimAt(history revision.History, target *pappsv1.ControllerRevision, template *pcorev1.PodTemplateSpec) {
	others := make([]*pappsv1.ControllerRevision, 0, len(history)+1)
	for _, rev := range history {
		if rev.Name != target.Name {
			others = append(others, rev)
		}
	}
	s.history = revision.NewHistory(append(others, target))
	s.target, s.template = target, template
}

// aimElsewhere aims at another revision than the spec's own, if there is reason to: at that of a rollback in force; else, while config is
// missing, at the newest that there is.
func (s *scope) aimElsewhere(history revision.History) (bool, error) {
	s.attempt = revision.Attempt{
		Spec: s.set.Spec.RolloutSpec, Status: s.set.Status.RolloutStatus, Generation: s.set.Generation, Deadline: s.settings.deadline,
		Since: s.since, Paused: !s.settings.rolling || s.pinned.Missing != nil,
		Exists: func(name string) bool { return history.Named(name) != nil },
	}
	if s.set.Spec.OnFailure != "" && s.pinned.Missing == nil {
		spec := s.set.Spec
		spec.Template = *s.own()
		intent, err := revision.Intent(spec)
		if err != nil {
			return false, err
		}
		s.attempt.Intent = intent
	}
	var target *pappsv1.ControllerRevision
	if back := s.attempt.InForce(); back != nil {
		target = history.Named(back.Revision)
	} else if s.pinned.Missing != nil && len(history) > 0 {
		target = history[len(history)-1]
	}
	if target == nil {
		return false, nil
	}
	snapshot, err := revision.Read(target)
	if err != nil {
		return false, err
	}
	s.aimAt(history, target, snapshot.Template)
	s.elsewhere = true
	return true, nil
}

// podTemplate is the template of the pods that are made: with the labels of the revision and the tolerations of a daemon pod.
func podTemplate(s *scope) *pcorev1.PodTemplateSpec {
	out := *s.template // shallow: what changes is replaced
	out.Labels = maps.Clone(s.template.Labels)
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[revision.PodRevisionLabel] = s.hash()
	out.Labels[generationLabel] = strconv.FormatInt(s.target.Revision, 10)
	out.Spec = *workload.WithDaemonTolerations(&s.template.Spec)
	return &out
}
