// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// a Deployment of that size at template n, as a test wants it.
func aDeployment(replicas int32, template int, change ...func(*pappsv1.Deployment)) *pappsv1.Deployment {
	m := newModel(replicas, appsv1.DeploymentStrategy{})
	m.setTemplate(template)
	m.d.Generation = 2
	for _, c := range change {
		c(m.d)
	}
	return m.d
}

// aSet is the ReplicaSet of template n, of that size, with so many pods available; its status describes its size. It was sized for
// a Deployment of the size desired.
func aSet(template int, size, available, desired int32, change ...func(*pappsv1.ReplicaSet)) *pappsv1.ReplicaSet {
	d := aDeployment(size, template)
	rs := &pappsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("set-%d", template), UID: types.UID(fmt.Sprint(template)), Generation: 1,
		CreationTimestamp: metav1.NewTime(start.Add(time.Duration(template) * time.Minute)),
	}}
	rs.Annotations = revision.WithSize(map[string]string{revision.Annotation: fmt.Sprint(template)}, desired, desired+(desired+3)/4)
	rs.Spec.Replicas, rs.Spec.Template = &size, revision.WithHash(&d.Spec.Template, "h")
	rs.Status.ObservedGeneration = 1
	rs.Status.Replicas, rs.Status.ReadyReplicas, rs.Status.AvailableReplicas = size, available, available
	for _, c := range change {
		c(rs)
	}
	return rs
}

func fences(surge, unavailable any) func(*pappsv1.Deployment) {
	parse := func(v any) *intstr.IntOrString {
		out := intstr.Parse(fmt.Sprint(v))
		return &out
	}
	return func(d *pappsv1.Deployment) {
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: parse(surge), MaxUnavailable: parse(unavailable)}
	}
}

func paused(d *pappsv1.Deployment)   { d.Spec.Paused = true }
func recreate(d *pappsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType }

func complete3(d *pappsv1.Deployment) {
	d.Status.ObservedGeneration = d.Generation
	d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.AvailableReplicas = 3, 3, 3
}

// TestPlan: one step of a rollout, as "+size" for a new ReplicaSet, "name→size" for a change, "-name" for one that is removed.
func TestPlan(t *testing.T) {
	keep1 := func(d *pappsv1.Deployment) { d.Spec.RevisionHistoryLimit = new(int32(1)) }
	for what, test := range map[string]struct {
		d    *pappsv1.Deployment
		sets []*pappsv1.ReplicaSet
		want string
	}{
		"the first revision":            {d: aDeployment(3, 1), want: "+3"},
		"nothing to do":                 {d: aDeployment(3, 1), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3)}},
		"a new revision starts small":   {d: aDeployment(4, 2), sets: []*pappsv1.ReplicaSet{aSet(1, 4, 4, 4)}, want: "+1"},
		"without surge it starts empty": {d: aDeployment(4, 2, fences(0, 1)), sets: []*pappsv1.ReplicaSet{aSet(1, 4, 4, 4)}, want: "+0"},
		"then an old one goes":          {d: aDeployment(4, 2, fences(0, 1)), sets: []*pappsv1.ReplicaSet{aSet(1, 4, 4, 4), aSet(2, 0, 0, 4)}, want: "set-1→3"},
		"both move in one step":         {d: aDeployment(4, 2, fences(1, 1)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 4), aSet(2, 1, 1, 4)}, want: "set-1→2 set-2→2"},
		"new pods aren't available yet": {d: aDeployment(4, 2, fences(1, 0)), sets: []*pappsv1.ReplicaSet{aSet(1, 4, 4, 4), aSet(2, 1, 0, 4)}},
		"a status that is behind is awaited": {d: aDeployment(4, 2, fences(0, 1)), sets: []*pappsv1.ReplicaSet{
			aSet(1, 4, 4, 4, func(rs *pappsv1.ReplicaSet) { rs.Generation = 2 }), aSet(2, 0, 0, 4),
		}},
		"pods that still go count":        {d: aDeployment(4, 2, fences(1, 0)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 4, func(rs *pappsv1.ReplicaSet) { rs.Status.Replicas = 4 }), aSet(2, 1, 1, 4)}},
		"unhealthy old ones go first":     {d: aDeployment(4, 3, fences(1, 1)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 4), aSet(2, 2, 0, 4), aSet(3, 0, 0, 4)}, want: "set-2→0"},
		"an old template is used again":   {d: aDeployment(4, 1), sets: []*pappsv1.ReplicaSet{aSet(1, 0, 0, 4), aSet(2, 4, 4, 4)}, want: "set-1→1 set-2→3"},
		"scaled up":                       {d: aDeployment(5, 1), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3)}, want: "set-1→5"},
		"scaled to zero":                  {d: aDeployment(0, 1), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3)}, want: "set-1→0"},
		"scaled within a rollout":         {d: aDeployment(20, 2, fences(0, "50%")), sets: []*pappsv1.ReplicaSet{aSet(1, 5, 5, 10, maxOf(10)), aSet(2, 5, 2, 10, maxOf(10))}, want: "set-1→10 set-2→10"},
		"scaled down within a rollout":    {d: aDeployment(5, 2, fences(0, "50%")), sets: []*pappsv1.ReplicaSet{aSet(1, 6, 6, 10, maxOf(10)), aSet(2, 4, 2, 10, maxOf(10))}, want: "set-1→3 set-2→2"},
		"a pause stops a rollout":         {d: aDeployment(4, 2, paused), sets: []*pappsv1.ReplicaSet{aSet(1, 4, 4, 4)}},
		"a pause doesn't stop scaling":    {d: aDeployment(6, 2, paused), sets: []*pappsv1.ReplicaSet{aSet(1, 4, 4, 4)}, want: "set-1→6"},
		"paused from the start":           {d: aDeployment(3, 1, paused)},
		"recreate ends the old first":     {d: aDeployment(3, 2, recreate), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3)}, want: "set-1→0"},
		"recreate waits for the last pod": {d: aDeployment(3, 2, recreate), sets: []*pappsv1.ReplicaSet{aSet(1, 0, 0, 3, func(rs *pappsv1.ReplicaSet) { rs.Status.TerminatingReplicas = new(int32(1)) })}},
		"recreate starts the new at once": {d: aDeployment(3, 2, recreate), sets: []*pappsv1.ReplicaSet{aSet(1, 0, 0, 3)}, want: "+3"},
		"old revisions are cleared away":  {d: aDeployment(3, 3, complete3, keep1), sets: []*pappsv1.ReplicaSet{aSet(1, 0, 0, 3), aSet(2, 0, 0, 3), aSet(3, 3, 3, 3)}, want: "-set-1"},
		"but none that has pods":          {d: aDeployment(3, 3, complete3, keep1), sets: []*pappsv1.ReplicaSet{aSet(1, 0, 0, 3, func(rs *pappsv1.ReplicaSet) { rs.Status.Replicas = 1 }), aSet(2, 0, 0, 3), aSet(3, 3, 3, 3)}},
	} {
		s := &scope{deployment: test.d, replicaSets: test.sets, now: start}
		var err error
		if s.settings, err = readSettings(&test.d.Spec); err != nil {
			t.Fatal(err)
		}
		p, err := makePlan(s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, show(p)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

func maxOf(n int) func(*pappsv1.ReplicaSet) {
	return func(rs *pappsv1.ReplicaSet) { rs.Annotations[revision.MaxAnnotation] = fmt.Sprint(n) }
}

// show writes a plan's sizes down; a change of annotations alone is left out.
func show(p plan) string {
	var out []string
	if p.create != nil {
		out = append(out, fmt.Sprintf("+%d", *p.create.Spec.Replicas))
	}
	for _, c := range p.update {
		if *c.before.Spec.Replicas != *c.after.Spec.Replicas {
			out = append(out, fmt.Sprintf("%s→%d", c.after.Name, *c.after.Spec.Replicas))
		}
	}
	for _, rs := range p.remove {
		out = append(out, "-"+rs.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestReadSettings(t *testing.T) {
	for _, test := range []struct {
		replicas           int32
		surge, unavailable any
		most, least        int32
	}{
		{10, "25%", "25%", 13, 8}, {1, "25%", "25%", 2, 1}, {1, 0, "1%", 1, 0}, {2, 0, "1%", 2, 1}, {3, 5, 5, 8, 0}, {0, "25%", "25%", 0, 0}, {10, "0%", "0%", 10, 9},
	} {
		d := aDeployment(test.replicas, 1, fences(test.surge, test.unavailable))
		s, err := readSettings(&d.Spec)
		if err != nil || s.most() != test.most || s.least() != test.least {
			t.Errorf("%d with surge %v, unavailable %v: between %d and %d (%v), want %d and %d", test.replicas, test.surge, test.unavailable, s.least(), s.most(), err, test.least, test.most)
		}
	}
	for want, change := range map[string]func(*pappsv1.Deployment){
		"spec.strategy.type is \"Sideways\"": func(d *pappsv1.Deployment) { d.Spec.Strategy.Type = "Sideways" },
		"maxSurge must be a number or":       fences("many", 1),
		"maxUnavailable must be a number or": fences(1, "few"),
	} {
		d := aDeployment(3, 1, change)
		if _, err := readSettings(&d.Spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestConditions: what the conditions say, as "Type=Status(Reason)".
func TestConditions(t *testing.T) {
	progressSince := func(reason string, status corev1.ConditionStatus, ago time.Duration) func(*pappsv1.Deployment) {
		return func(d *pappsv1.Deployment) {
			d.Status.Conditions = progressing(nil, status, reason, "before", start.Add(-ago))
		}
	}
	broken := func(rs *pappsv1.ReplicaSet) {
		rs.Status.Conditions = condition.ReplicaSet.SetVerdict(nil, condition.Verdict{Reason: "ImagePullBackOff", Message: "Pod p: no image."}, start)
	}
	for what, test := range map[string]struct {
		d       *pappsv1.Deployment
		sets    []*pappsv1.ReplicaSet
		o       outcome
		want    string
		message string
	}{
		"complete": {d: aDeployment(3, 1), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3)}, o: outcome{estimate: true},
			want: "Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable) Ready=True(NewReplicaSetAvailable)", message: "3 of 3 pods are updated and available."},
		"under way": {d: aDeployment(3, 1, progressSince(reasonCreated, "True", time.Minute)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 1, 3)}, o: outcome{estimate: true},
			want: "Available=False(MinimumReplicasUnavailable) Progressing=True(ReplicaSetUpdated) Ready=False(Progressing) Reconciling=True(Progressing)", message: "1 of 3 pods are updated and available."},
		"stuck": {d: aDeployment(3, 1, progressSince(reasonUpdated, "True", time.Hour), func(d *pappsv1.Deployment) { d.Status.Replicas, d.Status.UpdatedReplicas = 3, 3 }), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 0, 3, broken)}, o: outcome{estimate: true},
			want: "Available=False(MinimumReplicasUnavailable) Progressing=False(ProgressDeadlineExceeded) Ready=False(ProgressDeadlineExceeded) Stalled=True(ProgressDeadlineExceeded)", message: "The rollout made no progress for 10m0s. Pod p: no image."},
		"a pod fails after the rollout": {d: aDeployment(3, 1, progressSince(reasonComplete, "True", time.Hour)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 2, 3, broken)}, o: outcome{estimate: true},
			want: "Available=False(MinimumReplicasUnavailable) Progressing=True(NewReplicaSetAvailable) Ready=False(ImagePullBackOff) Reconciling=True(ImagePullBackOff)", message: "Pod p: no image."},
		"paused": {d: aDeployment(3, 2, paused, progressSince(reasonUpdated, "True", time.Hour)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3)},
			want: "Available=True(MinimumReplicasAvailable) Progressing=Unknown(DeploymentPaused) Ready=False(DeploymentPaused)", message: "The rollout is paused. 0 of 3 pods are updated and available."},
		"resumed": {d: aDeployment(3, 1, progressSince(reasonPaused, "Unknown", time.Hour), func(d *pappsv1.Deployment) { d.Status.Replicas, d.Status.UpdatedReplicas = 3, 3 }), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 0, 3)}, o: outcome{estimate: true},
			want: "Available=False(MinimumReplicasUnavailable) Progressing=Unknown(DeploymentResumed) Ready=False(Progressing) Reconciling=True(Progressing)", message: "0 of 3 pods are updated and available."},
		"refused": {d: aDeployment(3, 1), o: outcome{estimate: true, createErr: errors.New("creating ReplicaSet web: over quota")},
			want: "Available=False(MinimumReplicasUnavailable) Progressing=False(ReplicaSetCreateError) Ready=False(ReplicaSetCreateError) Reconciling=True(ReplicaSetCreateError)", message: "creating ReplicaSet web: over quota"},
		"there and back before anything moved": {d: aDeployment(3, 1, progressSince(reasonCreated, "True", 0)), sets: []*pappsv1.ReplicaSet{aSet(1, 3, 3, 3), aSet(2, 1, 0, 3, func(rs *pappsv1.ReplicaSet) {
			rs.Status = pappsv1.ReplicaSetStatus{}
			rs.Status.ObservedGeneration = -1
		})}, o: outcome{estimate: true},
			want: "Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated) Ready=False(Progressing) Reconciling=True(Progressing)", message: "3 of 3 pods are updated and available."},
	} {
		s := &scope{deployment: test.d, replicaSets: test.sets, now: start}
		s.settings, _ = readSettings(&test.d.Spec)
		var err error
		if s.target, err = aim(s); err != nil {
			t.Fatal(err)
		}
		test.o.replicaSets = test.sets
		status, _ := makeStatus(s, test.o)
		var got []string
		for _, c := range status.Conditions {
			got = append(got, fmt.Sprintf("%s=%s(%s)", c.Type, c.Status, c.Reason))
		}
		slices.Sort(got)
		if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if c, _ := condition.Deployment.Get(status.Conditions, pcorev1.ConditionReady); c.Message != test.message {
			t.Errorf("%s: %q, want %q", what, c.Message, test.message)
		}
		again := s.deployment.DeepCopy()
		again.Status = status
		s.deployment = again
		if second, _ := makeStatus(s, outcome{replicaSets: test.sets, estimate: test.o.estimate, createErr: test.o.createErr}); compareStatus(&status, &second) != same {
			t.Errorf("%s: a second look changes the status: %s", what, cmp.Diff(status, second))
		}
	}
}

func TestRollback(t *testing.T) {
	d := aDeployment(3, 2, func(d *pappsv1.Deployment) {
		d.Annotations = map[string]string{revision.RollbackAnnotation: "0", "kubernetes.io/change-cause": "new", revision.Annotation: "2"}
	})
	old := aSet(1, 0, 0, 3, func(rs *pappsv1.ReplicaSet) { rs.Annotations["kubernetes.io/change-cause"] = "old" })
	s := &scope{deployment: d, replicaSets: []*pappsv1.ReplicaSet{old, aSet(2, 3, 3, 3)}, now: start}
	s.settings, _ = readSettings(&d.Spec)
	p, err := makePlan(s)
	if err != nil {
		t.Fatal(err)
	}
	if !revision.Equal(&p.deployment.Spec.Template, &old.Spec.Template) || p.deployment.Spec.Template.Labels[revision.HashLabel] != "" {
		t.Errorf("template %+v", p.deployment.Spec.Template)
	}
	want := map[string]string{"kubernetes.io/change-cause": "old", revision.Annotation: "2"}
	if diff := cmp.Diff(want, p.deployment.Annotations); diff != "" {
		t.Error(diff)
	}
}
