// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// oldRuntime answers as containerd 1.6 does: it has no events, and it says NotFound for an unknown image.
type oldRuntime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	grace int64
	ready bool
}

func (o *oldRuntime) StopContainer(_ context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	o.grace = r.GetTimeout()
	return &runtimeapi.StopContainerResponse{}, nil
}

func (o *oldRuntime) ImageStatus(context.Context, *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	return nil, status.Error(codes.NotFound, "no such image")
}

func (o *oldRuntime) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: o.ready, Reason: "Starting", Message: "not yet"},
	}}}, nil
}

func serve(t *testing.T, path string, o *oldRuntime) *grpc.Server {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, o)
	runtimeapi.RegisterImageServiceServer(server, o)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return server
}

func dial(t *testing.T, path string, opts ...Option) *Client {
	t.Helper()
	c, err := Dial(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestOldRuntime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cri.sock")
	old := &oldRuntime{}
	serve(t, path, old)
	var observed []string
	c := dial(t, "unix://"+path, WithObserver(func(method string, _ time.Duration, err error) {
		observed = append(observed, method+" "+status.Code(err).String())
	}))
	ctx := context.Background()

	if err := c.Events(ctx, nil); status.Code(err) != codes.Unimplemented {
		t.Errorf("events of a runtime without them: %v", err)
	}
	if image, err := c.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: "x"}); image != nil || err != nil {
		t.Errorf("an unknown image: %v, %v", image, err)
	}
	if err := c.StopContainer(ctx, "x", 1500*time.Millisecond); err != nil || old.grace != 2 {
		t.Errorf("a grace of 1.5 s became %d s (%v)", old.grace, err)
	}
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "Starting: not yet") {
		t.Errorf("a runtime that isn't ready: %v", err)
	}
	old.ready = true
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	want := []string{"ImageStatus NotFound", "StopContainer OK", "Status OK", "Status OK"}
	if diff := cmp.Diff(want, observed); diff != "" {
		t.Error(diff)
	}
}

// TestRestart: a runtime that comes back is used again without anybody dialling anew, and soon.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cri.sock")
	c := dial(t, path)
	ctx := context.Background()
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "there is no container runtime at "+path) {
		t.Errorf("before the runtime: %v", err)
	}
	for range 2 {
		server := serve(t, path, &oldRuntime{ready: true})
		deadline := time.Now().Add(5 * time.Second)
		for c.Ready(ctx) != nil {
			if time.Now().After(deadline) {
				t.Fatal("the runtime is there and not found")
			}
			time.Sleep(5 * time.Millisecond)
		}
		server.Stop()
	}
}

func TestSocketPath(t *testing.T) {
	for in, want := range map[string]string{"unix:///run/x.sock": "/run/x.sock", "/run/x.sock": "/run/x.sock"} {
		if got, err := SocketPath(in); err != nil || got != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "tcp://localhost:1", "run/x.sock"} {
		if _, err := SocketPath(in); err == nil || !strings.Contains(err.Error(), "is no unix socket") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestWholeSeconds(t *testing.T) {
	for in, want := range map[time.Duration]int64{0: 0, -time.Second: 0, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2} {
		if got := wholeSeconds(in); got != want {
			t.Errorf("%s: %d, want %d", in, got, want)
		}
	}
}
