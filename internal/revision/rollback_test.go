// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// trying is an attempt at "new" after "old" was complete, with a deadline of a minute.
func trying(change ...func(*Attempt)) Attempt {
	a := Attempt{
		Spec: pappsv1.RolloutSpec{OnFailure: pappsv1.FailureRollback}, Status: pappsv1.RolloutStatus{LastCompleteRevision: "old"},
		Generation: 7, Intent: "this", Deadline: time.Minute, Exists: func(name string) bool { return name == "old" || name == "new" },
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func since(ago time.Duration) func(*Attempt) {
	return func(a *Attempt) {
		a.Status.Progress = &pappsv1.RolloutProgress{Revision: "new", Updated: 2, Available: 1, Old: 2, Time: metav1.NewTime(start.Add(-ago))}
	}
}

func rolledBack(a *Attempt) {
	a.Status.Rollback = &pappsv1.RollbackStatus{Generation: 7, Intent: "this", FailedRevision: "new", Revision: "old", Message: "before"}
}

func TestJudge(t *testing.T) {
	stuck := Sample{Revision: "new", Want: 3, Updated: 2, Available: 1, Old: 2}
	for what, test := range map[string]struct {
		a    Attempt
		s    Sample
		want string
	}{
		"the first look starts the clock": {a: trying(), s: stuck, want: "last old, new since 0s, again in 1m1s"},
		"time passes":                     {a: trying(since(30 * time.Second)), s: stuck, want: "last old, new since 30s, again in 31s"},
		"it is over":                      {a: trying(since(61 * time.Second)), s: stuck, want: "last old, rolled back from new to old: new made no progress for 1m0s., again in 1ms"},
		"with a reason": {a: trying(since(time.Hour)), s: Sample{Revision: "new", Want: 3, Updated: 2, Available: 1, Old: 2, Reason: "ImagePullBackOff", Message: "Pod p: no image."},
			want: "last old, rolled back from new to old: new made no progress for 1m0s: Pod p: no image., again in 1ms"},
		"progress in the last moment": {a: trying(since(time.Hour)), s: Sample{Revision: "new", Want: 3, Updated: 3, Available: 1, Old: 2}, want: "last old, new since 0s, again in 1m1s"},
		"an old pod went":             {a: trying(since(time.Hour)), s: Sample{Revision: "new", Want: 3, Updated: 2, Available: 1, Old: 1}, want: "last old, new since 0s, again in 1m1s"},
		"a step back is no progress":  {a: trying(since(30 * time.Second)), s: Sample{Revision: "new", Want: 3, Updated: 1, Old: 3}, want: "last old, new since 30s, again in 31s"},
		"another revision":            {a: trying(since(time.Hour)), s: Sample{Revision: "newer", Want: 3, Updated: 1, Old: 3}, want: "last old, newer since 0s, again in 1m1s"},
		"complete":                    {a: trying(since(time.Hour)), s: Sample{Revision: "new", Want: 3, Updated: 3, Available: 3, Complete: true}, want: "last new"},
		"complete without pods":       {a: trying(), s: Sample{Revision: "new", Complete: true}, want: "last old"},
		"nobody looked":               {a: trying(since(time.Hour), func(a *Attempt) { a.Since = start.Add(-time.Second) }), s: stuck, want: "last old, new since 1h0m0s, again in 1m0s"},
		"paused":                      {a: trying(since(time.Hour), func(a *Attempt) { a.Paused = true }), s: stuck, want: "last old"},
		"no deadline":                 {a: trying(since(time.Hour), func(a *Attempt) { a.Deadline = 0 }), s: stuck, want: "last old"},
		"switched off":                {a: trying(since(time.Hour), func(a *Attempt) { a.Spec.OnFailure = "" }), s: stuck, want: "last old"},
		"nothing to go back to":       {a: trying(since(time.Hour), func(a *Attempt) { a.Status.LastCompleteRevision = "" }), s: stuck, want: "last "},
		"the last one is gone":        {a: trying(since(time.Hour), func(a *Attempt) { a.Exists = func(string) bool { return false } }), s: stuck, want: "last old"},
		"the last one itself fails":   {a: trying(), s: Sample{Revision: "old", Want: 3, Updated: 3, Available: 2}, want: "last old"},
		"not made yet":                {a: trying(), s: Sample{Want: 3, Old: 3}, want: "last old"},
		"a rollback holds":            {a: trying(rolledBack), s: Sample{Revision: "old", Want: 3, Updated: 3, Available: 3, Complete: true}, want: "last old, rolled back from new to old: before"},
		"nobody knows the intent":     {a: trying(rolledBack, func(a *Attempt) { a.Intent = "" }), s: stuck, want: "last old, rolled back from new to old: before"},
		"a new intent tries again":    {a: trying(rolledBack, func(a *Attempt) { a.Intent = "that" }), s: stuck, want: "last old, new since 0s, again in 1m1s"},
		"off ends a rollback":         {a: trying(rolledBack, func(a *Attempt) { a.Spec.OnFailure = "" }), s: stuck, want: "last old"},
	} {
		next, wait := test.a.Judge(test.s, start)
		got := "last " + next.LastCompleteRevision
		if p := next.Progress; p != nil {
			got += fmt.Sprintf(", %s since %s", p.Revision, start.Sub(p.Time.Time))
		}
		if r := next.Rollback; r != nil {
			got += fmt.Sprintf(", rolled back from %s to %s: %s", r.FailedRevision, r.Revision, r.Message)
		}
		if wait > 0 {
			got += fmt.Sprintf(", again in %s", wait)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// TestMarksAfterScalingDown: the marks of a larger size don't hide the progress of a smaller one.
func TestMarksAfterScalingDown(t *testing.T) {
	a := trying(since(time.Hour))
	a.Status.Progress.Updated, a.Status.Progress.Available, a.Status.Progress.Old = 9, 9, 0
	next, _ := a.Judge(Sample{Revision: "new", Want: 3, Updated: 1}, start)
	if next.Rollback == nil {
		t.Errorf("%+v", next)
	}
	a.Status.Progress.Time = metav1.NewTime(start.Add(-30 * time.Second))
	next, _ = a.Judge(Sample{Revision: "new", Want: 3, Updated: 1}, start)
	a.Status = next
	next, _ = a.Judge(Sample{Revision: "new", Want: 5, Updated: 4}, start)
	if next.Progress == nil || !next.Progress.Time.Time.Equal(start) {
		t.Errorf("%+v", next)
	}
}

func TestIntent(t *testing.T) {
	of := func(spec pappsv1.DeploymentSpec) string {
		out, err := Intent(spec)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	a := pappsv1.DeploymentSpec{Template: *template("image:1")}
	b := pappsv1.DeploymentSpec{Template: *template("image:2")}
	if of(a) == of(b) || of(a) != of(*a.DeepCopy()) {
		t.Error("intents don't tell specs apart")
	}
}
