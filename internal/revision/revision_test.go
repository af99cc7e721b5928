// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package revision

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

func template(image string) *pcorev1.PodTemplateSpec {
	t := &pcorev1.PodTemplateSpec{}
	t.Labels = map[string]string{"app": "web"}
	t.Spec.Containers = []corev1.Container{{Name: "main", Image: image}}
	return t
}

func TestEqualAndHash(t *testing.T) {
	a, b := template("image:1"), template("image:2")
	hash, err := Hash(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The hash is part of names that are stored. This one must never change.
	if want := "86fbd5d4c"; hash != want {
		t.Errorf("hash %s, want %s", hash, want)
	}
	hashed := WithHash(a, hash)
	if !Equal(a, &hashed) || Equal(a, b) {
		t.Error("templates are equal when all but the hash label is")
	}
	if a.Labels[HashLabel] != "" {
		t.Error("WithHash changed its argument")
	}
	plain := WithoutHash(&hashed)
	if diff := cmp.Diff(*a, plain); diff != "" {
		t.Error(diff)
	}
	if other, _ := Hash(a, new(int32(1))); other == hash {
		t.Error("a collision count leads to the same hash")
	}
}

func TestAnnotate(t *testing.T) {
	for what, test := range map[string]struct {
		own, deployment map[string]string
		newest          int64
		want            map[string]string
	}{
		"a new one": {
			deployment: map[string]string{"note": "x", Annotation: "7", corev1.LastAppliedConfigAnnotation: "{}"}, newest: 3,
			want: map[string]string{"note": "x", Annotation: "3"},
		},
		"the newest already": {own: map[string]string{Annotation: "3"}, newest: 2, want: map[string]string{Annotation: "3"}},
		"used again":         {own: map[string]string{Annotation: "1"}, newest: 3, want: map[string]string{Annotation: "3", HistoryAnnotation: "1"}},
		"used a third time":  {own: map[string]string{Annotation: "3", HistoryAnnotation: "1"}, newest: 5, want: map[string]string{Annotation: "5", HistoryAnnotation: "1,3"}},
		"not a number":       {own: map[string]string{Annotation: "x"}, newest: 5, want: map[string]string{Annotation: "x"}},
	} {
		if diff := cmp.Diff(test.want, Annotate(test.own, test.deployment, test.newest)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	long, _ := appendHistory(strings.Repeat("123456789,", 199)+"123456789", "200")
	if len(long) > maxHistory || !strings.HasSuffix(long, ",200") {
		t.Errorf("a history of %d characters", len(long))
	}
}

func TestNumbers(t *testing.T) {
	var pods []*pcorev1.Pod // any object will do
	for _, n := range []string{"2", "", "9", "x", "5"} {
		p := &pcorev1.Pod{}
		p.Annotations = map[string]string{Annotation: n}
		pods = append(pods, p)
	}
	if Max(pods) != 9 || Last(pods) != 5 {
		t.Errorf("max %d, last %d; want 9, 5", Max(pods), Last(pods))
	}
}
