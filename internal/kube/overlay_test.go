// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func pod(name, version string) *pcorev1.Pod {
	return &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: version}}
}

// TestOverlay: own writes are seen until the cache shows them, and forgotten then.
func TestOverlay(t *testing.T) {
	start := time.Now()
	for what, test := range map[string]struct {
		write  func(*Overlay[*pcorev1.Pod])
		cached []*pcorev1.Pod
		after  time.Duration
		want   string
		empty  bool
	}{
		"nothing written":       {cached: []*pcorev1.Pod{pod("a", "1")}, want: "a@1", empty: true},
		"created, not yet seen": {write: func(o *Overlay[*pcorev1.Pod]) { o.Created("me", pod("a", "2"), start) }, want: "a@2"},
		"created and seen":      {write: func(o *Overlay[*pcorev1.Pod]) { o.Created("me", pod("a", "2"), start) }, cached: []*pcorev1.Pod{pod("a", "3")}, want: "a@3", empty: true},
		"created, never seen":   {write: func(o *Overlay[*pcorev1.Pod]) { o.Created("me", pod("a", "2"), start) }, after: time.Minute, empty: true},
		"created, then ended": {write: func(o *Overlay[*pcorev1.Pod]) {
			o.Created("me", pod("a", "2"), start)
			o.Gone("me", "a")
		}, empty: true},
		"updated, cache behind":  {write: func(o *Overlay[*pcorev1.Pod]) { o.Updated("me", pod("a", "10"), start) }, cached: []*pcorev1.Pod{pod("a", "9")}, want: "a@10"},
		"updated, cache ahead":   {write: func(o *Overlay[*pcorev1.Pod]) { o.Updated("me", pod("a", "9"), start) }, cached: []*pcorev1.Pod{pod("a", "10")}, want: "a@10", empty: true},
		"deleted, not yet seen":  {write: func(o *Overlay[*pcorev1.Pod]) { o.Deleted("me", pod("a", "1"), start) }, cached: []*pcorev1.Pod{pod("a", "1")}, want: "a@1†"},
		"deleted and gone":       {write: func(o *Overlay[*pcorev1.Pod]) { o.Deleted("me", pod("a", "1"), start) }, empty: true},
		"another owner's writes": {write: func(o *Overlay[*pcorev1.Pod]) { o.Created("them", pod("a", "1"), start) }},
		"created and deleted, unseen": {write: func(o *Overlay[*pcorev1.Pod]) {
			o.Created("me", pod("a", "1"), start)
			o.Deleted("me", pod("a", "1"), start)
		}, want: "a@1†"},
		"created, deleted, then comes in": {write: func(o *Overlay[*pcorev1.Pod]) {
			o.Created("me", pod("a", "1"), start)
			o.Deleted("me", pod("a", "1"), start)
		}, cached: []*pcorev1.Pod{pod("a", "1")}, want: "a@1†"},
	} {
		o := NewOverlay(CopyPod)
		if test.write != nil {
			test.write(o)
		}
		var got []string
		for _, p := range o.Apply("me", test.cached, start.Add(test.after)) {
			s := fmt.Sprintf("%s@%s", p.Name, p.ResourceVersion)
			if p.DeletionTimestamp != nil {
				s += "†"
			}
			got = append(got, s)
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %q, want %q", what, s, test.want)
		}
		if empty := len(o.byOwner) == 0; empty != test.empty {
			t.Errorf("%s: is the overlay empty afterwards? %v", what, empty)
		}
		for _, p := range test.cached {
			if p.DeletionTimestamp != nil {
				t.Errorf("%s: the cached pod was changed", what)
			}
		}
	}
}

// TestRelay: laying own writes over a list that holds own writes already forgets nothing.
func TestRelay(t *testing.T) {
	start := time.Now()
	o := NewOverlay(CopyPod)
	o.Created("me", pod("made", "5"), start)
	o.Deleted("me", pod("deleted", "1"), start)
	cached := []*pcorev1.Pod{pod("deleted", "1")}
	for look := range 3 {
		applied := o.Apply("me", cached, start)
		again := o.Relay("me", applied)
		if len(applied) != 2 || len(again) != 2 || again[0].DeletionTimestamp == nil {
			t.Fatalf("look %d: %d, then %d pods", look, len(applied), len(again))
		}
	}
}

func TestSlim(t *testing.T) {
	p := pod("a", "1")
	p.ManagedFields = []metav1.ManagedFieldsEntry{{}}
	p.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"}
	if _, err := Slim(p); err != nil {
		t.Fatal(err)
	}
	if p.ManagedFields != nil || len(p.Annotations) != 1 {
		t.Errorf("metadata %+v", p.ObjectMeta)
	}
}
