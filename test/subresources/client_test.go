// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// caller calls subresources as one user.
type caller struct {
	config *rest.Config
	plain  *rest.RESTClient
}

func newCaller(t *testing.T, config *rest.Config, user string) *caller {
	t.Helper()
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion, c.QPS = "/apis", &schema.GroupVersion{Group: "subresources.pinnace.dev", Version: "v1"}, -1
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	if user != "" {
		c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	}
	plain, err := rest.RESTClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	return &caller{c, plain}
}

func (c *caller) request(pod, subresource string) *rest.Request {
	return c.plain.Post().Namespace("default").Resource("pods").Name(pod).SubResource(subresource)
}

// log reads a log; the parameters are name=value.
func (c *caller) log(ctx context.Context, pod, container string, parameters ...string) (string, error) {
	request := c.plain.Get().Namespace("default").Resource("pods").Name(pod).SubResource("log").Param("container", container)
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		request.Param(name, value)
	}
	stream, err := request.Stream(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = stream.Close() }()
	data, err := io.ReadAll(stream)
	return string(data), err
}

// result is what a command did.
type result struct {
	stdout, stderr string
	err            error
}

// protocols are those that clients of the API server speak.
var protocols = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"WebSocket": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, http.MethodGet, u.String())
	},
	"SPDY": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, http.MethodPost, u)
	},
}

func (c *caller) stream(ctx context.Context, protocol string, u *url.URL, stdin io.Reader, tty bool, sizes remotecommand.TerminalSizeQueue) result {
	executor, err := protocols[protocol](c.config, u)
	if err != nil {
		return result{err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	options := remotecommand.StreamOptions{Stdin: stdin, Stdout: &stdout, Tty: tty, TerminalSizeQueue: sizes}
	if !tty {
		options.Stderr = &stderr
	}
	err = executor.StreamWithContext(ctx, options)
	return result{stdout.String(), stderr.String(), err}
}

// exec runs a command without a terminal.
func (c *caller) exec(ctx context.Context, protocol, pod, container string, stdin io.Reader, command ...string) result {
	u := c.request(pod, "exec").SpecificallyVersionedParams(&corev1.PodExecOptions{
		Container: container, Command: command, Stdin: stdin != nil, Stdout: true, Stderr: true,
	}, scheme.ParameterCodec, corev1.SchemeGroupVersion).URL()
	return c.stream(ctx, protocol, u, stdin, false, nil)
}

// terminal runs a command with one, and gives it the sizes in order.
func (c *caller) terminal(ctx context.Context, protocol, pod, container string, sizes []remotecommand.TerminalSize, command ...string) result {
	u := c.request(pod, "exec").SpecificallyVersionedParams(&corev1.PodExecOptions{
		Container: container, Command: command, Stdout: true, TTY: true,
	}, scheme.ParameterCodec, corev1.SchemeGroupVersion).URL()
	return c.stream(ctx, protocol, u, nil, true, &sizeList{sizes})
}

type sizeList struct{ left []remotecommand.TerminalSize }

func (l *sizeList) Next() *remotecommand.TerminalSize {
	if len(l.left) == 0 {
		return nil
	}
	size := l.left[0]
	l.left = l.left[1:]
	return &size
}

// attach joins a container's own streams.
func (c *caller) attach(ctx context.Context, protocol, pod, container string, stdin io.Reader) result {
	u := c.request(pod, "attach").SpecificallyVersionedParams(&corev1.PodAttachOptions{
		Container: container, Stdin: stdin != nil, Stdout: true, Stderr: true,
	}, scheme.ParameterCodec, corev1.SchemeGroupVersion).URL()
	return c.stream(ctx, protocol, u, stdin, false, nil)
}

// get asks a port of a pod through a forwarded one.
func (c *caller) get(ctx context.Context, protocol, pod string, port int, path string) (string, error) {
	dialer, err := c.dialer(protocol, c.request(pod, "portforward").URL())
	if err != nil {
		return "", err
	}
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	defer close(stop)
	forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return "", err
	}
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case err := <-failed:
		return "", err
	case <-ctx.Done():
		return "", ctx.Err()
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", ports[0].Local, path), nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return string(data), err
}

func (c *caller) dialer(protocol string, u *url.URL) (httpstream.Dialer, error) {
	if protocol == "WebSocket" {
		return portforward.NewSPDYOverWebsocketDialerForStreaming(u, c.config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), nil
}
