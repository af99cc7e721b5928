// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package condition

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 500, time.UTC)

func TestSet(t *testing.T) {
	c := Condition{Type: "Ready", Status: corev1.ConditionFalse, Reason: "A", Message: "a"}
	first := Deployment.Set(nil, c, start)
	if same := Deployment.Set(first, c, start.Add(time.Hour)); !cmp.Equal(first, same) {
		t.Errorf("nothing changed, but: %s", cmp.Diff(first, same))
	}
	c.Message = "b"
	second := Deployment.Set(first, c, start.Add(time.Hour))
	if !second[0].LastTransitionTime.Equal(&first[0].LastTransitionTime) || second[0].LastUpdateTime.Equal(&first[0].LastUpdateTime) {
		t.Errorf("a new message changes the update time alone: %+v", second)
	}
	if kept := Deployment.SetReason(first, c, start.Add(time.Hour)); !cmp.Equal(first, kept) {
		t.Error("SetReason changes a message")
	}
	c.Status = corev1.ConditionTrue
	if third := Deployment.Set(second, c, start.Add(2*time.Hour)); third[0].LastTransitionTime.Equal(&first[0].LastTransitionTime) || len(third) != 1 {
		t.Errorf("a new status changes the transition time: %+v", third)
	}
}

func TestBound(t *testing.T) {
	if got := Bound(" two\n lines\t"); got != "two lines" {
		t.Errorf("got %q", got)
	}
	if got := Bound(strings.Repeat("ä", MaxMessage)); len(got) > MaxMessage || !strings.HasSuffix(got, "ä…") {
		t.Errorf("a long message is cut to %d bytes, ending in %q", len(got), got[len(got)-8:])
	}
}

// TestVerdict: Reconciling and Stalled are never there together, and neither is when an object is ready.
func TestVerdict(t *testing.T) {
	var list []appsv1.ReplicaSetCondition
	for _, test := range []struct {
		state State
		want  string
	}{
		{InProgress, "Ready=False Reconciling=True"}, {Failed, "Ready=False Stalled=True"},
		{InProgress, "Ready=False Reconciling=True"}, {Waiting, "Ready=False"}, {Done, "Ready=True"},
	} {
		list = ReplicaSet.SetVerdict(list, Verdict{State: test.state, Reason: "R", Message: "m"}, start)
		var got []string
		for _, c := range list {
			got = append(got, string(c.Type)+"="+string(c.Status))
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("state %d: %s, want %s", test.state, s, test.want)
		}
	}
}
