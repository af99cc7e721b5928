// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/setup"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// startAgents runs an agent for each real node, or one process for all simulated ones.
func (m *machine) startAgents(ctx context.Context) error {
	if m.options.real() {
		return m.eachNode(func(n *node) error { return m.startAgent(ctx, n) })
	}
	kubeconfig, err := m.plane.Kubeconfig("simulator", SimulatorUser)
	if err != nil {
		return err
	}
	return m.supervise(ctx, "", supervise.Process{
		Name: "agent",
		Path: m.program,
		Args: append([]string{
			"agent", "--kubeconfig=" + kubeconfig, "--node-name=node", "--simulate=" + strconv.Itoa(m.options.Nodes),
			"--cluster-cidr=" + m.options.PodCIDR, "--service-cidr=" + m.options.ServiceCIDR,
			"--data-dir=" + filepath.Join(m.options.DataDir, "nodes"),
		}, m.options.agentFlags()...),
		Env: memoryEnv,
	})
}

func (m *machine) startAgent(ctx context.Context, n *node) error {
	kubeconfig, err := m.plane.Kubeconfig("agent-"+n.name, NodeUserPrefix+n.name, NodesGroup)
	if err != nil {
		return err
	}
	server, err := m.serverArgs(n)
	if err != nil {
		return err
	}
	p := supervise.Process{
		Name: "agent-" + n.name,
		Path: m.program,
		Args: []string{
			"agent", "--kubeconfig=" + kubeconfig, "--node-name=" + n.name,
			"--cluster-cidr=" + m.options.PodCIDR, "--service-cidr=" + m.options.ServiceCIDR,
			"--data-dir=" + filepath.Join(n.dir, "agent"), "--runtime-endpoint=" + n.endpoint,
			"--cgroup-root=" + n.cgroupRoot(),
		},
		Env: memoryEnv,
	}
	p.Args = append(p.Args, server...)
	if !m.options.KeepPods {
		// What is removed after the agent has gone is told before.
		p.Args = append(p.Args, "--stop-pods")
		// Were this program killed, nobody would have asked for the pods to stop.
		p.OrphanSignal = syscall.SIGKILL
		p.StopTimeout = agentStopTimeout
	}
	if m.options.RuntimeEndpoint == "" {
		p.Args = append(p.Args, "--cni-conf-dir="+n.containerd.CNIConfDir)
	}
	if n.address().IsValid() {
		p.Args = append(p.Args, "--node-ip="+n.address().String())
	}
	p.Args = append(p.Args, m.options.agentFlags()...)
	return m.supervise(ctx, n.netns, p)
}

// agentFlags are the user's own.
func (o *Options) agentFlags() []string {
	var out []string
	for _, arg := range o.AgentArgs {
		out = append(out, "--"+arg)
	}
	return out
}

// agentStopTimeout is longer than --stop-pods takes at most.
const agentStopTimeout = 40 * time.Second

// serverArgs give an agent's server a certificate in its node's name, and tell it whose clients to trust.
func (m *machine) serverArgs(n *node) ([]string, error) {
	authority, err := m.plane.AuthorityFile(controlplane.ClusterAuthority)
	if err != nil {
		return nil, err
	}
	leaf := pki.Leaf{Name: "agent-server-" + n.name, CommonName: n.name, DNSNames: []string{n.name}, Server: true}
	if n.address().IsValid() {
		leaf.IPs = append(leaf.IPs, net.IP(n.address().AsSlice()))
	}
	pair, err := m.plane.Certificate(controlplane.ClusterAuthority, leaf)
	if err != nil {
		return nil, err
	}
	return []string{"--tls-cert-file=" + pair.CertFile, "--tls-private-key-file=" + pair.KeyFile, "--client-ca-file=" + authority}, nil
}

// awaitNodes waits until each node says that it is Ready, and is open for pods.
func (m *machine) awaitNodes(ctx context.Context) error {
	c, err := client.New(m.plane.RESTConfig(), client.Options{Scheme: setup.NewScheme()})
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	var list pcorev1.NodeList
	var waiting []string
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, nodesTimeout, true, func(ctx context.Context) (bool, error) {
		select {
		case err := <-m.failed: // An agent that dies again and again registers no node.
			return false, err
		default:
		}
		if err := c.List(ctx, &list); err != nil {
			return false, nil //nolint:nilerror // The API server may just be restarting; the timeout ends the wait.
		}
		waiting = m.unready(&list)
		return len(waiting) == 0, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return fmt.Errorf("after %s these nodes are not Ready: %s; the agents' logs are in %s",
			nodesTimeout, strings.Join(waiting, "; "), filepath.Join(m.options.DataDir, "log"))
	}
	if err != nil {
		return err
	}
	return m.routeToNodes(&list)
}

// unready lists the nodes that are not Ready, each with its reason, ten at most.
func (m *machine) unready(list *pcorev1.NodeList) []string {
	var out []string
	for i := range m.options.Nodes {
		name := fmt.Sprintf("node-%d", i+1)
		if reason := unreadyReason(list, name); reason != "" && len(out) < 10 {
			out = append(out, name+": "+reason)
		}
	}
	return out
}

func unreadyReason(list *pcorev1.NodeList, name string) string {
	for i := range list.Items {
		if list.Items[i].Name != name {
			continue
		}
		for _, c := range list.Items[i].Status.Conditions {
			if c.Type == corev1.NodeReady {
				if c.Status == corev1.ConditionTrue {
					return closedReason(&list.Items[i])
				}
				return c.Message
			}
		}
		return "it has not reported yet"
	}
	return "it has not registered"
}

// closedReason: a node is Ready a moment before the manager opens it, and pods that are made then all go to the first that is open.
func closedReason(node *pcorev1.Node) string {
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady {
			return "it is not open for pods yet"
		}
	}
	return ""
}

// routeToNodes lets the machine itself reach pods and services of nodes that have a network of their own.
func (m *machine) routeToNodes(list *pcorev1.NodeList) error {
	if !m.options.namespaced() {
		return nil
	}
	routes, err := hostRoutes(m.nodes, list, m.options.ServiceCIDR)
	if err != nil {
		return err
	}
	return m.ensureRoutes(routes)
}

// ensureRoutes makes the machine's routes to its nodes exactly these.
func (m *machine) ensureRoutes(routes []podnetwork.Route) error {
	var networks []netip.Prefix
	for _, text := range []string{m.options.PodCIDR, m.options.ServiceCIDR} {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("reading the network of pods or services: %w", err)
		}
		networks = append(networks, network)
	}
	return podnetwork.EnsureMachineRoutes(networks, routes)
}

// hostRoutes sends each node's pods to that node, and services to the first: its rules know every service.
func hostRoutes(nodes []*node, list *pcorev1.NodeList, serviceCIDR string) ([]podnetwork.Route, error) {
	services, err := netip.ParsePrefix(serviceCIDR)
	if err != nil {
		return nil, fmt.Errorf("reading the services' network: %w", err)
	}
	routes := []podnetwork.Route{{Destination: services, Gateway: nodes[0].address()}}
	for _, n := range nodes {
		for i := range list.Items {
			if list.Items[i].Name != n.name {
				continue
			}
			pods, err := netip.ParsePrefix(list.Items[i].Spec.PodCIDR)
			if err != nil {
				return nil, fmt.Errorf("reading the pod network of %s: %w", n.name, err)
			}
			routes = append(routes, podnetwork.Route{Destination: pods, Gateway: n.address()})
		}
	}
	return routes, nil
}
