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

	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/internal/dataplane"
	"github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
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
	done := m.report.step("Making the network of " + countNodes(m.options.Nodes))
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
	return errors.Join(append(errs, m.ensureRoutes(nil), podnetwork.RemoveSegment(ctx, m.segment))...)
}

// startRuntimes starts each node's containerd.
func (m *machine) startRuntimes(ctx context.Context) error {
	if !m.options.real() {
		return nil
	}
	if m.options.RuntimeEndpoint != "" {
		m.removePodsAtEnd(m.nodes[0])
		return nil
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
	table, err := dataplane.New(dataplane.DefaultTable, ruleset.Config{Family: ruleset.IPv4, NodeName: n.name})
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
		m.push("", func(context.Context) error { return n.containerd.RemoveState() })
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
	m.removePodsAtEnd(n) // after containerd, so done before it stops; the agent has stopped by then
	return awaitRuntime(ctx, n)
}

// cgroupRoot is the parent of the node's pods, its own: an agent kills what runs there and is of no pod that it knows.
func (n *node) cgroupRoot() string {
	sum := sha256.Sum256([]byte(n.dir))
	return cgroup.Pods + "-" + hex.EncodeToString(sum[:4])
}

// address is where the machine reaches the node.
func (n *node) address() netip.Addr { return n.place.Address }
