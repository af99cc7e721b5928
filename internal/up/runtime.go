// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/internal/runtime/stray"
	"github.com/pinnace-dev/pinnace/internal/setup"
)

// runtimeTimeout bounds how long a runtime takes from its socket to its first answer.
const runtimeTimeout = 30 * time.Second

// checkPrograms misses what nodes need before anything starts; the control plane looks for its own.
func (m *machine) checkPrograms(context.Context) error {
	if !m.options.real() || m.options.RuntimeEndpoint != "" {
		return nil
	}
	if err := containerd.ForNode(m.options.DataDir, m.options.AssetsDir).CheckPrograms(); err != nil {
		return err
	}
	for _, name := range []string{"pause", "cni/bridge", "cni/host-local"} {
		if _, err := os.Stat(filepath.Join(m.options.AssetsDir, name)); err != nil {
			return fmt.Errorf("%s has no %s: build the missing programs with `make assets`, or point --assets-dir to a folder that has them", m.options.AssetsDir, name)
		}
	}
	return nil
}

// checkRuntime asks the runtime that the user names, before anything starts, whether pods can run there.
func (m *machine) checkRuntime(ctx context.Context) error {
	if m.options.RuntimeEndpoint == "" {
		return nil
	}
	done := m.report.step("Asking the container runtime for its status")
	err := m.askRuntime(ctx, m.options.RuntimeEndpoint)
	done(err)
	return err
}

func (m *machine) askRuntime(ctx context.Context, endpoint string) error {
	path, err := cri.SocketPath(endpoint)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("there is no container runtime at %s: start it, or name its socket with --runtime-endpoint", path)
	}
	client, err := cri.Dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := awaitReady(ctx, client, path, runtimeTimeout); err != nil {
		return err
	}
	return m.checkRuntimeNetwork(ctx, client, path)
}

// checkRuntimeNetwork: without a pod network the node would never become Ready.
func (m *machine) checkRuntimeNetwork(ctx context.Context, client *cri.Client, path string) error {
	if slices.ContainsFunc(m.options.AgentArgs, func(arg string) bool { return strings.HasPrefix(arg, "cni-conf-dir=") }) {
		return nil // The agent writes its configuration as soon as the node has its part of the pod network.
	}
	answer, err := client.Status(ctx)
	if err != nil {
		return fmt.Errorf("asking the container runtime at %s for its status: %w", path, err)
	}
	for _, c := range answer.GetConditions() {
		if c.GetType() == runtimeapi.NetworkReady && !c.GetStatus() {
			return fmt.Errorf("the container runtime at %s has no pod network (%s): configure one, or let Pinnace do it with --agent-arg cni-conf-dir=/etc/cni/net.d",
				path, c.GetMessage())
		}
	}
	return nil
}

// awaitReady waits so long until the runtime answers and can run containers; a path is how errors call it.
func awaitReady(ctx context.Context, client *cri.Client, path string, within time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(bounded, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := client.Ready(ctx)
		if err == nil || bounded.Err() == nil { // The end of the wait itself says nothing of the runtime.
			last = err
		}
		return last == nil || status.Code(last) == codes.Unimplemented, nil
	})
	switch {
	case status.Code(last) == codes.Unimplemented:
		return fmt.Errorf("the program at %s is no container runtime for Kubernetes: take cri out of disabled_plugins in containerd's configuration, and restart it", path)
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case status.Code(last) == codes.Unavailable:
		return fmt.Errorf("no container runtime has answered at %s within %s: start it, or see in its log why it doesn't", path, within)
	}
	return fmt.Errorf("the container runtime at %s isn't ready after %s: %w", path, within, last)
}

func awaitRuntime(ctx context.Context, n *node) error {
	client, err := cri.Dial(n.endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return awaitReady(ctx, client, strings.TrimPrefix(n.endpoint, "unix://"), runtimeTimeout)
}

// removePodsAtEnd has the node's pods and what its agent made of a network go when everything stops, unless they are to run on.
func (m *machine) removePodsAtEnd(n *node) {
	if m.options.KeepPods {
		return
	}
	m.push("Stopping the containers of "+n.name, func(ctx context.Context) error {
		return errors.Join(m.removePods(ctx, n), cgroup.RemoveEmpty(n.cgroupRoot()), n.removeNetwork(ctx))
	})
}

// stopGrace is what containers get to end by themselves when everything stops.
const stopGrace = 10 * time.Second

// removePods stops and removes every pod of a node. In a runtime that isn't ours alone there may be others' pods, too.
func (m *machine) removePods(ctx context.Context, n *node) error {
	client, err := cri.Dial(n.endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	containers, err := client.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing the containers: %w", err)
	}
	sandboxes, err := client.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing the pods: %w", err)
	}
	if m.options.RuntimeEndpoint != "" {
		if sandboxes, err = m.ownSandboxes(ctx, n, sandboxes); err != nil {
			return err
		}
		containers = slices.DeleteFunc(containers, func(c *runtimeapi.Container) bool {
			return !slices.ContainsFunc(sandboxes, func(s *runtimeapi.PodSandbox) bool { return s.Id == c.PodSandboxId })
		})
	}
	var all []func() error
	for _, c := range containers {
		all = append(all, func() error { return client.StopContainer(ctx, c.Id, stopGrace) })
	}
	if err := inParallel(all); err != nil {
		return fmt.Errorf("stopping the containers: %w", err)
	}
	all = nil
	for _, s := range sandboxes {
		all = append(all, func() error {
			return errors.Join(client.StopPodSandbox(ctx, s.Id), client.RemovePodSandbox(ctx, s.Id), cgroup.RemovePod(n.cgroupRoot(), s.GetMetadata().GetUid()))
		})
	}
	if err := inParallel(all); err != nil {
		return fmt.Errorf("removing the pods: %w", err)
	}
	if m.options.RuntimeEndpoint != "" {
		return nil
	}
	return endShims(ctx, client)
}

// endShims ends shims that are left when their pods are gone. While the agent runs it sees to that, some time later.
func endShims(ctx context.Context, client *cri.Client) error {
	finder := &stray.Finder{Info: client.Info}
	found, err := finder.Find(ctx)
	for _, shim := range found.Shims {
		if shim.Folderless && !shim.Busy {
			err = errors.Join(err, finder.EndShim(ctx, shim))
		}
	}
	return err
}

// ownSandboxes are those of pods that the API server knows on the node.
func (m *machine) ownSandboxes(ctx context.Context, n *node, all []*runtimeapi.PodSandbox) ([]*runtimeapi.PodSandbox, error) {
	c, err := client.New(m.plane.RESTConfig(), client.Options{Scheme: setup.NewScheme()})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	var pods pcorev1.PodList
	if err := c.List(ctx, &pods, client.MatchingFields{"spec.nodeName": n.name}); err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", n.name, err)
	}
	own := map[types.UID]bool{}
	for i := range pods.Items {
		own[pods.Items[i].UID] = true
		own[types.UID(pods.Items[i].Annotations[corev1.MirrorPodAnnotationKey])] = true
	}
	return slices.DeleteFunc(all, func(s *runtimeapi.PodSandbox) bool { return !own[types.UID(s.GetMetadata().GetUid())] }), nil
}

// inParallel runs a few of the functions at a time and joins what they return.
func inParallel(all []func() error) error {
	const width = 8
	slots := make(chan struct{}, width)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, do := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
