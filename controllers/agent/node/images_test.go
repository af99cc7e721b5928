// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestImagesRideOnTheStatus(t *testing.T) {
	g := newRig(t)
	g.runtime.network = true
	var images []corev1.ContainerImage
	g.r.find("node-1").Images = func() []corev1.ContainerImage { return images }
	g.look()
	g.look()
	images = []corev1.ContainerImage{{Names: []string{"hello:1"}, SizeBytes: 7}}
	writes := g.writes
	for range 3 {
		g.now = g.now.Add(10 * time.Second)
		if diff := cmp.Diff(images, g.look().Status.Images); diff != "" {
			t.Errorf("images (-want +got):\n%s", diff)
		}
	}
	if g.writes != writes+1 {
		t.Errorf("a new image took %d writes, want 1", g.writes-writes)
	}
	images = nil // An agent that has just started doesn't know yet.
	g.now = g.now.Add(10 * time.Second)
	if got := g.look().Status.Images; len(got) != 1 {
		t.Errorf("what was known before is forgotten: %v", got)
	}
}
