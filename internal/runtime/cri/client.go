// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
)

// maxMessageBytes bounds one answer of the runtime. It is the limit that containerd and the kubelet use too: a
// list of some thousand containers stays below it.
const maxMessageBytes = 16 << 20

// Client is a runtime behind a socket. It is safe for concurrent use.
type Client struct {
	connection *grpc.ClientConn
	runtime    runtimeapi.RuntimeServiceClient
	images     runtimeapi.ImageServiceClient
}

var _ runtime.Service = (*Client)(nil)

// Option changes how a client is made.
type Option func(*options)

type options struct {
	interceptors []grpc.UnaryClientInterceptor
}

// WithObserver calls observe after each call with the method's short name ("RunPodSandbox"), how long it took and how
// it ended. Observe must be quick and safe for concurrent use.
func WithObserver(observe func(method string, took time.Duration, err error)) Option {
	return func(o *options) {
		o.interceptors = append(o.interceptors, func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			start := time.Now()
			err := invoke(ctx, method, req, reply, cc, opts...)
			observe(method[strings.LastIndexByte(method, '/')+1:], time.Since(start), err)
			return err
		})
	}
}

// Dial prepares a client of the runtime at an endpoint: a unix socket's path, with or without "unix://". It doesn't
// wait for the runtime, which may start later and may be restarted at any time: a call made meanwhile ends with gRPC
// code Unavailable. The caller closes the client.
func Dial(endpoint string, opts ...Option) (*Client, error) {
	path, err := SocketPath(endpoint)
	if err != nil {
		return nil, err
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	connection, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		// A socket of this machine needs no courtesy: after a restart of the runtime the agent is back at once.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(o.interceptors...),
		grpc.WithDisableServiceConfig(),
		// Events are small and rare, and calls are few at a time.
		grpc.WithReadBufferSize(16<<10), grpc.WithWriteBufferSize(16<<10),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to the container runtime at %s: %w", path, err)
	}
	return &Client{
		connection: connection,
		runtime:    runtimeapi.NewRuntimeServiceClient(connection),
		images:     runtimeapi.NewImageServiceClient(connection),
	}, nil
}

// SocketPath reads an endpoint as users write it and returns the socket's absolute path.
func SocketPath(endpoint string) (string, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("the runtime endpoint %q is no unix socket: give its absolute path, such as unix:///run/containerd/containerd.sock", endpoint)
	}
	return path, nil
}

// Ready returns nil once the runtime answers and says that it can run containers. Its network may still be missing:
// that is NetworkReady in Status. The error is one clear sentence.
func (c *Client) Ready(ctx context.Context) error {
	status, err := c.Status(ctx)
	if err != nil {
		path := strings.TrimPrefix(c.connection.Target(), "unix://")
		if _, statErr := os.Stat(path); errors.Is(statErr, os.ErrNotExist) {
			return fmt.Errorf("there is no container runtime at %s yet: %w", path, err)
		}
		return fmt.Errorf("asking the container runtime at %s for its status: %w", path, err)
	}
	for _, condition := range status.GetConditions() {
		if condition.GetType() == runtimeapi.RuntimeReady && !condition.GetStatus() {
			return fmt.Errorf("the container runtime says that it isn't ready: %s: %s", condition.GetReason(), condition.GetMessage())
		}
	}
	return nil
}

// Close ends the connection; calls under way fail with gRPC code Canceled.
func (c *Client) Close() error { return c.connection.Close() }

// Version implements runtime.Runtime.
func (c *Client) Version(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	return c.runtime.Version(ctx, &runtimeapi.VersionRequest{Version: "v1"})
}

// Status implements runtime.Runtime.
func (c *Client) Status(ctx context.Context) (*runtimeapi.RuntimeStatus, error) {
	response, err := c.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, err
	}
	return response.GetStatus(), nil
}

// Info is what the runtime says of itself beyond CRI, such as its configuration, in words of its own.
func (c *Client) Info(ctx context.Context) (map[string]string, error) {
	response, err := c.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return nil, err
	}
	return response.GetInfo(), nil
}

// Events implements runtime.Runtime. containerd 1.6 knows no events and answers Unimplemented, as the port asks.
func (c *Client) Events(ctx context.Context, to chan<- *runtimeapi.ContainerEventResponse) error {
	stream, err := c.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the container runtime ended the stream of events")
		}
		if err != nil {
			return err
		}
		select {
		case to <- event:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
