// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// revised is a set whose history is image:1, then image:2, which the spec holds.
func revised(t *testing.T, change func(*pappsv1.DaemonSet)) (*scope, revision.History) {
	t.Helper()
	a, b := makeNode("a"), makeNode("b")
	s := newScope(t, func(spec *pappsv1.DaemonSetSpec) {
		spec.OnFailure = pappsv1.FailureRollback
		spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "image:2"}}
	}, a, b)
	var history revision.History
	for i, hash := range []string{"old", "new"} {
		rev := makeRevision(hash, int64(i+1))
		template := s.set.Spec.Template.DeepCopy()
		template.Spec.Containers[0].Image = []string{"image:1", "image:2"}[i]
		var err error
		if rev.Data, err = revision.Data(template); err != nil {
			t.Fatal(err)
		}
		history = append(history, rev)
	}
	s.set.Status.LastCompleteRevision = "net-old"
	if change != nil {
		change(s.set)
	}
	return s, history
}

// intentOf is what the set's spec asks for.
func intentOf(t *testing.T, set *pappsv1.DaemonSet) string {
	t.Helper()
	intent, err := revision.Intent(set.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return intent
}

func gaveUp(t *testing.T) func(*pappsv1.DaemonSet) {
	return func(set *pappsv1.DaemonSet) {
		set.Status.Rollback = &pappsv1.RollbackStatus{Generation: 1, Intent: intentOf(t, set), FailedRevision: "net-new", Revision: "net-old", Reason: "CrashLoopBackOff", Message: "net-new made no progress."}
	}
}

func TestAimElsewhere(t *testing.T) {
	missing := errors.New("ConfigMap app isn't there")
	for what, test := range map[string]struct {
		change  func(*pappsv1.DaemonSet)
		missing error
		without bool
		want    string
	}{
		"nothing is wrong":           {want: "net-new"},
		"a rollback is in force":     {change: gaveUp(t), want: "net-old elsewhere image:1"},
		"another template":           {change: func(set *pappsv1.DaemonSet) { gaveUp(t)(set); set.Spec.Template.Spec.Containers[0].Image = "image:3" }, want: "net-new"},
		"switched off":               {change: func(set *pappsv1.DaemonSet) { gaveUp(t)(set); set.Spec.OnFailure = "" }, want: "net-new"},
		"config is missing":          {missing: missing, want: "net-new elsewhere image:2"},
		"missing while rolled back":  {change: gaveUp(t), missing: missing, want: "net-old elsewhere image:1"},
		"missing from the beginning": {missing: missing, without: true, want: "net-new"},
	} {
		s, history := revised(t, test.change)
		s.pinned.Missing = test.missing
		if test.without {
			history = nil
		}
		elsewhere, err := s.aimElsewhere(history)
		if err != nil {
			t.Fatal(err)
		}
		got := s.target.Name
		if elsewhere {
			got += " elsewhere " + s.template.Spec.Containers[0].Image
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// TestRollbackOfOnDelete: what the user replaces can't fail by itself; what the controller replaces can.
func TestRollbackOfOnDelete(t *testing.T) {
	for strategy, want := range map[appsv1.DaemonSetUpdateStrategyType]bool{appsv1.OnDeleteDaemonSetStrategyType: false, appsv1.RollingUpdateDaemonSetStrategyType: true} {
		s, history := revised(t, func(set *pappsv1.DaemonSet) {
			set.Spec.UpdateStrategy.Type = strategy
			set.Status.Progress = &pappsv1.RolloutProgress{Revision: "net-new", Updated: 1, Old: 1, Time: metav1.NewTime(epoch.Add(-time.Hour))}
		})
		s.settings, _ = readSettings(&s.set.Spec)
		if _, err := s.aimElsewhere(history); err != nil {
			t.Fatal(err)
		}
		s.aim(history, history[1])
		s.pods = []*pcorev1.Pod{makePod("p a old ready"), makePod("q b new")}
		status, wait := makeStatus(s, outcome{})
		if got := status.Rollback != nil; got != want || got != (wait > 0 && wait < time.Second) {
			t.Errorf("%s: rollback %+v, wait %s", strategy, status.Rollback, wait)
		}
	}
}

// TestStatusOfARollback: the set is stalled for the first failing pod's reason, and none of its pods is what the spec asks for.
func TestStatusOfARollback(t *testing.T) {
	s, history := revised(t, gaveUp(t))
	if _, err := s.aimElsewhere(history); err != nil {
		t.Fatal(err)
	}
	s.pods = []*pcorev1.Pod{makePod("p a old ready"), makePod("q b old ready")}
	status, _ := makeStatus(s, outcome{})
	c, _ := condition.DaemonSet.Get(status.Conditions, pcorev1.ConditionStalled)
	if c.Reason != "CrashLoopBackOff" || !strings.HasPrefix(c.Message, "Rolled back to net-old, because net-new made no progress.") {
		t.Errorf("condition %+v", c)
	}
	if status.UpdatedNumberScheduled != 0 || status.NumberAvailable != 2 || status.Rollback == nil {
		t.Errorf("status %+v", status)
	}
	p, err := makePlan(s)
	if err != nil || !p.idle() || len(p.surplus) > 0 {
		t.Errorf("plan %+v, %v", p, err)
	}
}
