// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// revised is a set whose history is image:1, then image:2, which the spec holds.
func revised(t *testing.T, change ...func(*pappsv1.StatefulSet)) *scope {
	t.Helper()
	s := world{change: func(set *pappsv1.StatefulSet) {
		set.Spec.OnFailure = pappsv1.FailureRollback
		set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "image:2"}}
		set.Status.LastCompleteRevision = "old"
		all(change...)(set)
	}}.scope(t)
	for i, name := range []string{"old", "new"} {
		template := s.set.Spec.Template.DeepCopy()
		template.Spec.Containers[0].Image = []string{"image:1", "image:2"}[i]
		rev := &pappsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: name}, Revision: int64(i + 1)}
		var err error
		if rev.Data, err = revision.Data(template); err != nil {
			t.Fatal(err)
		}
		s.history = append(s.history, rev)
	}
	return s
}

func gaveUp(s *scope) {
	s.set.Status.Rollback = &pappsv1.RollbackStatus{Generation: 1, Intent: s.attempt.Intent, FailedRevision: "new", Revision: "old", Reason: "CrashLoopBackOff", Message: "new made no progress."}
}

func TestTarget(t *testing.T) {
	missing := errors.New("ConfigMap app isn't there")
	for what, test := range map[string]struct {
		back    bool
		change  func(*pappsv1.StatefulSet)
		missing error
		want    string
	}{
		"nothing is wrong":          {want: "image:2"},
		"a rollback is in force":    {back: true, want: "image:1"},
		"another size":              {back: true, change: size3(7), want: "image:1"},
		"another template":          {back: true, change: func(set *pappsv1.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = "image:3" }, want: "image:3"},
		"switched off":              {back: true, change: func(set *pappsv1.StatefulSet) { set.Spec.OnFailure = "" }, want: "image:2"},
		"config is missing":         {missing: missing, change: func(set *pappsv1.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = "image:3" }, want: "image:2"},
		"missing while rolled back": {back: true, missing: missing, want: "image:1"},
	} {
		s := revised(t)
		if test.back {
			gaveUp(s)
		}
		if test.change != nil {
			test.change(s.set)
		}
		s.pinned.Missing = test.missing
		var err error
		if s.attempt, err = makeAttempt(s); err != nil {
			t.Fatal(err)
		}
		target, err := s.target()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, target.Template.Spec.Containers[0].Image); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// TestGivingUp: a rollout is given up while the controller still has pods to replace, and never for what is left to the user.
func TestGivingUp(t *testing.T) {
	for what, test := range map[string]struct {
		pods   string
		change func(*pappsv1.StatefulSet)
		want   bool
	}{
		"stuck":                {pods: "db-0:old:up db-1:old:up db-2:new:new", want: true},
		"at its partition":     {pods: "db-0:old:up db-1:old:up db-2:new:up", change: rolling(2, intstr.FromInt32(1))},
		"above its partition":  {pods: "db-0:old:up db-1:old:up db-2:new:new", change: rolling(2, intstr.FromInt32(1)), want: true},
		"left to the user":     {pods: "db-0:old:up db-1:old:up db-2:new:new", change: onDelete},
		"without the deadline": {pods: "db-0:old:up db-1:old:up db-2:new:new", change: func(set *pappsv1.StatefulSet) { set.Spec.ProgressDeadlineSeconds = new(int32(2147483647)) }},
	} {
		s := revised(t, func(set *pappsv1.StatefulSet) {
			set.Status.Progress = &pappsv1.RolloutProgress{Revision: "new", Updated: 1, Available: 1, Old: 2, Time: metav1.NewTime(testNow.Add(-time.Hour))}
			if test.change != nil {
				test.change(set)
			}
		})
		s.pods = world{pods: test.pods}.scope(t).pods
		status, _ := makeStatus(s, outcome{})
		if got := status.Rollback != nil; got != test.want {
			t.Errorf("%s: %+v", what, status.RolloutStatus)
		}
	}
}
