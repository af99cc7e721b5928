// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cri_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/test/node"
)

// startNode starts a real runtime, or skips, loudly, where that can't be.
func startNode(t *testing.T) *node.Node {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: -short leaves real containers out")
	}
	assets, err := filepath.Abs("../../../bin/assets")
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Prerequisites(assets); err != nil {
		if os.Getenv("CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: no real containers: %v", err)
	}
	n, err := node.Start(context.Background(), node.Options{Assets: assets, PodCIDR: "10.213.2.0/24", Bridge: "pncritest0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(n.Stop(context.Background()), node.RemoveCgroups("pinnace-critest")); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return n
}

// await polls until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestPodOnRealContainerd goes through a pod's whole life: an image that is in no registry but the one on localhost, a
// sandbox with an address, a container that logs, exec, stop, events, removal.
func TestPodOnRealContainerd(t *testing.T) {
	n := startNode(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	program := filepath.Join(t.TempDir(), "answer")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./testdata/answer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test's program: %v: %s", err, out)
	}
	const imageName = "pinnace.dev/answer:v1"
	if err := n.LoadProgram(ctx, program, imageName); err != nil {
		t.Fatal(err)
	}

	version, err := n.CRI.Version(ctx)
	if err != nil || version.GetRuntimeName() != "containerd" {
		t.Fatalf("version %v: %v", version, err)
	}
	var network bool
	await(t, "NetworkReady", func() bool {
		s, err := n.CRI.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.GetConditions() {
			network = network || (c.GetType() == runtimeapi.NetworkReady && c.GetStatus())
		}
		return network
	})

	events := make(chan *runtimeapi.ContainerEventResponse, 100)
	streamed := make(chan error, 1)
	eventsCtx, endEvents := context.WithCancel(ctx)
	go func() { streamed <- n.CRI.Events(eventsCtx, events) }()

	spec := &runtimeapi.ImageSpec{Image: imageName}
	if found, err := n.CRI.ImageStatus(ctx, spec); err != nil || found != nil {
		t.Fatalf("an image that was never pulled: %v, %v", found, err)
	}
	ref, err := n.CRI.PullImage(ctx, spec, nil, nil)
	if err != nil {
		t.Fatalf("pulling from the registry on localhost: %v", err)
	}
	if found, err := n.CRI.ImageStatus(ctx, spec); err != nil || found.GetId() == "" {
		t.Fatalf("the image after its pull: %v, %v", found, err)
	}

	logs := t.TempDir()
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "test", Uid: "uid-1"},
		Labels:       map[string]string{"pod": "uid-1"},
		LogDirectory: logs,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    "/pinnace-critest",
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}},
		},
	}
	sandboxID, err := n.CRI.RunPodSandbox(ctx, sandbox, "")
	if err != nil {
		t.Fatal(err)
	}
	state, err := n.CRI.PodSandboxStatus(ctx, sandboxID)
	if err != nil {
		t.Fatal(err)
	}
	if ip, err := netip.ParseAddr(state.GetNetwork().GetIp()); err != nil || !netip.MustParsePrefix("10.213.2.0/24").Contains(ip) {
		t.Errorf("the pod's address is %q", state.GetNetwork().GetIp())
	}
	if list, err := n.CRI.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"pod": "uid-1"}}); err != nil || len(list) != 1 {
		t.Errorf("found by its label: %v, %v", list, err)
	}

	containerID, err := n.CRI.CreateContainer(ctx, sandboxID, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: &runtimeapi.ImageSpec{Image: ref}, LogPath: "main.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		}},
	}, sandbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.CRI.StartContainer(ctx, containerID); err != nil {
		t.Fatal(err)
	}
	await(t, "the container's log", func() bool {
		data, _ := os.ReadFile(filepath.Join(logs, "main.log"))
		return strings.Contains(string(data), "hello from the container")
	})

	said, err := n.CRI.ExecSync(ctx, containerID, []string{"/answer", "say", "it", "works"}, 10*time.Second)
	if err != nil || said.GetExitCode() != 0 || string(said.GetStdout()) != "it works\n" {
		t.Errorf("exec said %v, %v", said, err)
	}

	if err := n.CRI.StopContainer(ctx, containerID, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	ended, err := n.CRI.ContainerStatus(ctx, containerID)
	if err != nil || ended.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || ended.GetExitCode() != 7 {
		t.Errorf("after its stop: %v, %v", ended, err)
	}
	if err := n.CRI.RemoveContainer(ctx, containerID); err != nil {
		t.Error(err)
	}
	if _, err := n.CRI.ContainerStatus(ctx, containerID); status.Code(err) != codes.NotFound {
		t.Errorf("a container that is gone: %v", err)
	}
	for range 2 { // Stop and remove are idempotent.
		if err := n.CRI.StopPodSandbox(ctx, sandboxID); err != nil {
			t.Error(err)
		}
		if err := n.CRI.RemovePodSandbox(ctx, sandboxID); err != nil {
			t.Error(err)
		}
	}

	seen := map[runtimeapi.ContainerEventType]bool{}
	await(t, "events of creation, start, end and deletion", func() bool {
		for {
			select {
			case event := <-events:
				if event.GetContainerId() == containerID {
					seen[event.GetContainerEventType()] = true
				}
			default:
				return len(seen) == 4
			}
		}
	})
	endEvents()
	if err := <-streamed; err == nil {
		t.Error("the stream of events ended without saying why")
	}

	_, err = n.CRI.PullImage(ctx, &runtimeapi.ImageSpec{Image: "pinnace.invalid/nothing:v1"}, nil, nil)
	if err == nil {
		t.Error("an image that is nowhere was pulled")
	} else {
		t.Logf("an image that is nowhere: %v", err)
	}
}
