// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
)

func historyOwner(annotations map[string]string) HistoryOwner {
	set := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "test", UID: "u", Annotations: annotations}}
	return HistoryOwner{Object: set, Kind: pappsv1.GroupVersion.WithKind("StatefulSet"), HashLabel: HistoryHashLabel}
}

func newRevision(t *testing.T, s Snapshot, number int64, collisions *int32) *pappsv1.ControllerRevision {
	t.Helper()
	rev, err := NewRevision(historyOwner(nil), s, number, collisions)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestNewRevision(t *testing.T) {
	tmpl := template("image:1")
	tmpl.Spec.TerminationGracePeriodSeconds = new(int64(30))
	rev, err := NewRevision(historyOwner(map[string]string{"kubernetes.io/change-cause": "x", corev1.LastAppliedConfigAnnotation: "{}"}), Snapshot{Template: tmpl}, 7, new(int32))
	if err != nil {
		t.Fatal(err)
	}
	// The data is what upstream's tools read, and its bytes are part of names that are stored.
	const want = `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"image:1","name":"main","resources":{}}],"terminationGracePeriodSeconds":30}}}}`
	if diff := cmp.Diff(want, string(rev.Data.Raw)); diff != "" {
		t.Error(diff)
	}
	if rev.Name != "db-7ffc5c94cc" || rev.Labels[HistoryHashLabel] != "7ffc5c94cc" || rev.Labels["app"] != "web" || rev.Revision != 7 {
		t.Errorf("revision %s, labels %v", rev.Name, rev.Labels)
	}
	if diff := cmp.Diff(map[string]string{"kubernetes.io/change-cause": "x"}, rev.Annotations); diff != "" {
		t.Error(diff)
	}
	if ref := metav1.GetControllerOf(rev); ref == nil || ref.UID != "u" || ref.Kind != "StatefulSet" {
		t.Errorf("owner %v", ref)
	}
	s, err := Read(rev)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Snapshot{Template: tmpl}, s); diff != "" {
		t.Error(diff)
	}
	if other := newRevision(t, Snapshot{Template: tmpl}, 7, new(int32(1))); other.Name == rev.Name {
		t.Error("a collision count leads to the same name")
	}
	for _, bad := range []string{"", "{}", `{"spec":{}}`, `[]`} {
		if _, err := Read(&pappsv1.ControllerRevision{Data: runtime.RawExtension{Raw: []byte(bad)}}); err == nil {
			t.Errorf("data %q was read", bad)
		}
	}
}

func TestHolds(t *testing.T) {
	a := newRevision(t, Snapshot{Template: template("image:1")}, 1, nil)
	same := a.DeepCopy()
	same.Data.Raw = []byte(strings.Replace(string(a.Data.Raw), `"metadata":{`, `"metadata":{"creationTimestamp":null,`, 1))
	other := newRevision(t, Snapshot{Template: template("image:2")}, 2, nil)
	none := newRevision(t, Snapshot{Template: template("image:1"), Claims: []string{}}, 3, nil)
	data := newRevision(t, Snapshot{Template: template("image:1"), Claims: []string{"data"}}, 3, nil)
	for what, test := range map[string]struct {
		b    *pappsv1.ControllerRevision
		want bool
	}{
		"itself": {a, true}, "written differently": {same, true}, "another template": {other, false}, "claims noted by one alone": {data, true},
	} {
		if got := Holds(a, test.b); got != test.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if Holds(none, data) || !Holds(data, data) {
		t.Error("claims that differ make a difference")
	}
	if none.Name != a.Name || data.Name == a.Name {
		t.Error("claims are part of the name, none are not")
	}
}

func TestHistorySteps(t *testing.T) {
	one := newRevision(t, Snapshot{Template: template("image:1")}, 1, new(int32))
	two := newRevision(t, Snapshot{Template: template("image:2")}, 4, new(int32))
	h := NewHistory([]*pappsv1.ControllerRevision{two, one})
	if h[0] != one || h.Next() != 5 || h.Named(two.Name) != two || h.Named("x") != nil || NewHistory(nil).Next() != 1 {
		t.Fatalf("history %v", h)
	}
	for image, want := range map[string]Step{"image:2": {Use: two}, "image:1": {Use: one, Number: 5}} {
		got, err := h.Step(historyOwner(nil), Snapshot{Template: template(image)}, nil)
		if err != nil || got != want {
			t.Errorf("%s: step %+v, %v", image, got, err)
		}
	}
	got, err := h.Step(historyOwner(nil), Snapshot{Template: template("image:3")}, nil)
	if err != nil || got.Use != nil || got.Create == nil || got.Create.Revision != 5 {
		t.Errorf("step %+v, %v", got, err)
	}
}

func TestSurplus(t *testing.T) {
	var h History
	for _, name := range []string{"a", "b", "c", "d"} {
		h = append(h, &pappsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for what, test := range map[string]struct {
		limit int32
		live  string
		want  string
	}{
		"all": {-1, "", ""}, "none but the live": {0, "bd", "ac"}, "the newest of the others": {1, "d", "ab"}, "few": {3, "d", ""},
	} {
		var got string
		for _, rev := range h.Surplus(test.limit, func(r *pappsv1.ControllerRevision) bool { return strings.Contains(test.live, r.Name) }) {
			got += rev.Name
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", what, got, test.want)
		}
	}
}

// TestRoundTrip: whatever the template, what is read back is what was written, and it is found equal.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tmpl := template(rapid.String().Draw(t, "image"))
		tmpl.Annotations = rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "annotations")
		tmpl.Spec.ActiveDeadlineSeconds = new(rapid.Int64().Draw(t, "seconds")) // beyond what a float can hold
		tmpl.Spec.MaxRestarts = new(rapid.Int32().Draw(t, "restarts"))
		tmpl.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(rapid.Int64Range(1, 1e9).Draw(t, "cpu"), resource.DecimalSI)}
		step, err := NewHistory(nil).Step(historyOwner(nil), Snapshot{Template: tmpl}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Read(step.Create)
		if err != nil {
			t.Fatal(err)
		}
		again, err := NewHistory([]*pappsv1.ControllerRevision{step.Create}).Step(historyOwner(nil), s, nil)
		if err != nil || again.Use != step.Create {
			t.Fatalf("step %+v, %v", again, err)
		}
	})
}
