// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// refusingRuntime pulls nothing.
type refusingRuntime struct{ runtime.Service }

func (refusingRuntime) PullImage(context.Context, *runtimeapi.ImageSpec, *runtimeapi.AuthConfig, *runtimeapi.PodSandboxConfig) (string, error) {
	return "", status.Error(codes.NotFound, "not found")
}

func TestAPullThatIsRefusedSaysWhatToDo(t *testing.T) {
	login := []*runtimeapi.AuthConfig{{Username: "puller", Password: "wrong"}}
	for name, c := range map[string]struct {
		auths   []*runtimeapi.AuthConfig
		refuses bool
		fails   error
		want    string
	}{
		"no login":           {refuses: true, want: "not found: the registry wants a login: name a pull secret for it in the imagePullSecrets of the pod or of its service account"},
		"the wrong login":    {auths: login, refuses: true, want: "not found: the registry refuses the login of the pull secret: put the right user name and password into it"},
		"no such image":      {auths: login, want: "not found"},
		"nobody to be asked": {fails: errors.New("no route to host"), want: "not found"},
	} {
		var asked string
		p := newPuller(refusingRuntime{}, 1)
		p.refuses = func(_ context.Context, _, username, _ string) (bool, error) {
			asked = username
			return c.refuses, c.fails
		}
		var got error
		p.pull(t.Context(), "registry.test/app:1", c.auths, nil, func(_ string, err error) { got = err })
		p.wait.Wait()
		if message(got) != c.want {
			t.Errorf("%s: got %q, want %q", name, message(got), c.want)
		}
		if len(c.auths) > 0 && asked != "puller" {
			t.Errorf("%s: the registry was asked as %q", name, asked)
		}
	}
}

func TestUserAdvice(t *testing.T) {
	config := &runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{}}}
	named := &runtimeapi.Image{Username: "somebody"}
	if got := userAdvice(config, named); !strings.Contains(got, `"somebody"`) || !strings.Contains(got, "runAsUser") {
		t.Errorf("a name: %q", got)
	}
	if got := userAdvice(config, &runtimeapi.Image{Uid: &runtimeapi.Int64Value{Value: 1}}); got != "" {
		t.Errorf("a number: %q", got)
	}
	config.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1}
	if got := userAdvice(config, named); got != "" {
		t.Errorf("runAsUser is set: %q", got)
	}
}
