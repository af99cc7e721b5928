// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/internal/dataplane"
	"github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// node is one real node of this machine.
type node struct {
	name       string
	dir        string
	endpoint   string
	containerd containerd.Config
	// place is the node's network namespace; unset when the node uses the machine's own network.
	place podnetwork.Node
	netns string
}

// hash tells the data folders of one machine apart in names that must be short.
func (o *Options) hash() string {
	sum := sha256.Sum256([]byte(o.DataDir))
	return hex.EncodeToString(sum[:4])
}

// planNodes names the nodes and their folders.
func (m *machine) planNodes() {
	for i := range m.options.Nodes {
		name := fmt.Sprintf("node-%d", i+1)
		n := &node{name: name, dir: filepath.Join(m.options.DataDir, "nodes", name)}
		n.containerd = containerd.ForNode(n.dir, m.options.AssetsDir)
		n.endpoint = n.containerd.Endpoint()
		if m.options.RuntimeEndpoint != "" {
			n.endpoint = m.options.RuntimeEndpoint
		}
		m.nodes = append(m.nodes, n)
	}
}

// startNetwork gives each of several nodes a network namespace of its own, joined by a bridge.
func (m *machine) startNetwork(ctx context.Context) error {
	if !m.options.real() {
		return nil
	}
	m.planNodes()
	if !m.options.namespaced() {
		return nil
	}
	done := m.report.step("Making the network of " + count(m.options.Nodes, "node"))
	err := m.makeSegment(ctx)
	done(err)
	return err
}

func (m *machine) makeSegment(ctx context.Context) error {
	var err error
	if m.segment, err = podnetwork.ChooseSegment("pn-"+m.options.hash(), podnetwork.DefaultSegmentNetworks); err != nil {
		return err
	}
	if !m.options.KeepPods {
		m.push("", func(ctx context.Context) error { return m.removeSegment(ctx) })
	}
	if err := podnetwork.EnsureSegment(ctx, m.segment); err != nil {
		return err
	}
	for i, n := range m.nodes {
		address, err := m.segment.NodeAddress(i + 1)
		if err != nil {
			return err
		}
		n.place = podnetwork.Node{Netns: "pn-" + m.options.hash() + "-" + n.name, Address: address, Segment: m.segment}
		if n.netns, err = podnetwork.EnsureNodeNetns(n.place); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) removeSegment(ctx context.Context) error {
	var errs []error
	for _, n := range m.nodes {
		if n.place.Netns != "" {
			errs = append(errs, podnetwork.RemoveNodeNetns(n.place))
		}
	}
	return errors.Join(append(errs, podnetwork.EnsureRoutes(nil), podnetwork.RemoveSegment(ctx, m.segment))...)
}

// startRuntimes starts each node's containerd.
func (m *machine) startRuntimes(ctx context.Context) error {
	if !m.options.real() {
		return nil
	}
	if m.options.RuntimeEndpoint != "" {
		return m.awaitRuntime(ctx, m.nodes[0])
	}
	done := m.report.step("Starting containerd")
	err := m.eachNode(func(n *node) error { return m.startContainerd(ctx, n) })
	done(err)
	return err
}

// removeNetwork takes away what the node's agent made in this machine's own network. A network namespace takes its
// content along when it goes.
func (n *node) removeNetwork(ctx context.Context) error {
	if n.netns != "" {
		return nil
	}
	table, err := dataplane.New(ruleset.Config{Family: ruleset.IPv4, NodeName: n.name})
	if err != nil {
		return err
	}
	return errors.Join(table.Remove(ctx), podnetwork.RemoveBridge(podnetwork.DefaultBridge), podnetwork.EnsureRoutes(nil))
}

// eachNode works on all nodes at once.
func (m *machine) eachNode(do func(*node) error) error {
	errs := make([]error, len(m.nodes))
	var wg sync.WaitGroup
	for i, n := range m.nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (m *machine) startContainerd(ctx context.Context, n *node) error {
	if err := n.containerd.CheckPrograms(); err != nil {
		return err
	}
	if err := n.containerd.Write(); err != nil {
		return err
	}
	if err := image.WriteHosts(n.containerd.RegistryConfigDir, m.registryAddress(), m.registry); err != nil {
		return err
	}
	if !m.options.KeepPods {
		m.push("", func(context.Context) error {
			return errors.Join(n.containerd.RemoveState(), cgroup.RemoveEmpty(n.cgroupRoot()))
		})
	}
	p := supervise.Process{
		Name:    "containerd-" + n.name,
		Path:    n.containerd.Program,
		Args:    n.containerd.Args(),
		Env:     n.containerd.Env(m.options.AssetsDir + ":" + os.Getenv("PATH")),
		LogFile: n.containerd.LogFile,
		Ready:   n.containerd.Ready,
	}
	if err := m.supervise(ctx, n.netns, p); err != nil {
		return err
	}
	if !m.options.KeepPods {
		// Pushed after containerd, so done before it stops; the agent has stopped by then.
		m.push("Stopping the containers of "+n.name, func(ctx context.Context) error {
			return errors.Join(removePods(ctx, n), n.removeNetwork(ctx))
		})
	}
	return m.awaitRuntime(ctx, n)
}

// runtimeTimeout bounds how long a runtime takes from its socket to its first answer.
const runtimeTimeout = 30 * time.Second

func (m *machine) awaitRuntime(ctx context.Context, n *node) error {
	client, err := cri.Dial(n.endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	var last error
	err = wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		last = client.Ready(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the container runtime at %s: %w", n.endpoint, errors.Join(last, err))
	}
	return nil
}

// stopGrace is what containers get to end by themselves when everything stops.
const stopGrace = 10 * time.Second

// removePods stops and removes every pod of a node whose runtime is ours alone.
func removePods(ctx context.Context, n *node) error {
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
	return nil
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

// cgroupRoot is the parent of the node's pods, its own: an agent kills what runs there and is of no pod that it knows.
func (n *node) cgroupRoot() string {
	sum := sha256.Sum256([]byte(n.dir))
	return cgroup.Pods + "-" + hex.EncodeToString(sum[:4])
}

// address is where the machine reaches the node.
func (n *node) address() netip.Addr { return n.place.Address }
