// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// askedRuntime counts the questions for images.
type askedRuntime struct {
	runtime.Service
	asked int
}

func (a *askedRuntime) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	a.asked++
	return a.Service.ImageStatus(ctx, image)
}

func TestAPresentImageIsAskedForOnceInAStart(t *testing.T) {
	r := newRig(t)
	counting := &askedRuntime{Service: r.runtime}
	pod := aPod("a").Obj()
	rec := &record{node: &nodeState{Node: Node{Name: "node-1", Runtime: counting}}}
	look := func(want int, why string) {
		t.Helper()
		if _, ref, ok := r.agent.image(t.Context(), rec, pod, &pod.Spec.Containers[0], nil); !ok || ref == "" {
			t.Fatalf("%s: the image is there, but ok is %t and the reference %q", why, ok, ref)
		}
		if counting.asked != want {
			t.Errorf("%s: %d questions, want %d", why, counting.asked, want)
		}
	}
	r.agent.prefetch(t.Context(), rec, pod, nil)
	look(1, "a start right after the sandbox")
	look(2, "a restart")
	r.agent.prefetch(t.Context(), rec, pod, nil)
	r.pass(foundFor)
	look(4, "a start long after the sandbox, when the image may have been removed")
}
