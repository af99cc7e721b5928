// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/setup"
	"github.com/pinnace-dev/pinnace/internal/subresources"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// ManagerUser is who the manager is to the API server; config/rbac binds it to its role.
const ManagerUser = "system:pinnace:manager"

// SimulatorUser is who the process of all simulated nodes is to the API server.
const SimulatorUser = "system:pinnace:simulator"

// NodeUserPrefix and NodesGroup are who an agent is to the API server: the policy for agents reads the node's name
// from the user's.
const (
	NodeUserPrefix = "system:pinnace:node:"
	NodesGroup     = "system:pinnace:nodes"
)

// memoryEnv keeps our own processes small: at Go's default their heaps grow to twice what lives. docs/bench.md has figures.
var memoryEnv = []string{"GOGC=80"}

// startManager runs the manager as a child, so that it may die and come back alone.
func (m *machine) startManager(ctx context.Context) error {
	kubeconfig, err := m.plane.Kubeconfig("manager", ManagerUser)
	if err != nil {
		return err
	}
	subresources, err := m.subresourcesArgs()
	if err != nil {
		return err
	}
	return m.supervise(ctx, "", supervise.Process{
		Name: "manager",
		Path: m.program,
		Args: append([]string{
			"manager", "--kubeconfig=" + kubeconfig, "--leader-elect=false",
			"--cluster-cidr=" + m.options.PodCIDR, "--service-cidr=" + m.options.ServiceCIDR,
		}, subresources...),
		Env: memoryEnv,
	})
}

// subresourcesArgs let the manager serve log, exec and the like on a loopback port of its own choice, which it registers
// with the API server of the same machine.
func (m *machine) subresourcesArgs() ([]string, error) {
	const loopback = "127.0.0.1"
	authority, err := m.plane.AuthorityFile(controlplane.ClusterAuthority)
	if err != nil {
		return nil, err
	}
	pair, err := m.plane.Certificate(controlplane.ClusterAuthority, pki.Leaf{
		Name: "subresources", CommonName: subresources.ServerName, DNSNames: []string{subresources.ServerName}, Server: true,
	})
	if err != nil {
		return nil, err
	}
	return []string{
		"--subresources-address=" + loopback + ":0", "--subresources-external-name=" + loopback,
		"--subresources-cert-file=" + pair.CertFile, "--subresources-key-file=" + pair.KeyFile, "--subresources-ca-file=" + authority,
		"--agent-ca-file=" + authority,
	}, nil
}

// supervise starts a child whose log and pid file stand in the data folder, and keeps it running until the stop. It runs
// in the given network namespace, or in this process' own.
func (m *machine) supervise(ctx context.Context, netns string, p supervise.Process) error {
	p.PIDFile = filepath.Join(m.options.DataDir, "run", p.Name+".pid")
	if p.LogFile == "" {
		p.LogFile = filepath.Join(m.options.DataDir, "log", p.Name+".log")
	}
	// Were this program killed, its children would run on beside those of the next start.
	if p.OrphanSignal == 0 {
		p.OrphanSignal = syscall.SIGTERM
	}
	program := filepath.Base(p.Path)
	if _, err := supervise.EndLeftover(ctx, p.PIDFile, func(line []string) bool {
		return len(line) > 0 && filepath.Base(line[0]) == program
	}, 10*time.Second); err != nil {
		return fmt.Errorf("ending the %s of an earlier run: %w", p.Name, err)
	}
	if netns != "" {
		var err error
		if p.Path, p.Args, err = podnetwork.EnterCommand(netns, p.Path, p.Args...); err != nil {
			return err
		}
	}
	s, err := supervise.Run(ctx, p, supervise.Options{OnEvent: m.onProcess})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.stops = append(m.stops, stop{"", s.Stop})
	m.children = append(m.children, s)
	m.mu.Unlock()
	go func() {
		select {
		case m.failed <- <-s.Failed():
		default: // The first failure ends everything; the rest follow from it.
		}
	}()
	return nil
}

// returnStartupMemory gives back, once, what only the start of all processes needed. The manager and the agents do it
// for themselves.
func (m *machine) returnStartupMemory(ctx context.Context) {
	if setup.ReturnStartupMemory(ctx) != nil || ctx.Err() != nil {
		return
	}
	var pids []int
	for _, p := range m.plane.Processes() {
		pids = append(pids, p.PID)
	}
	m.mu.Lock()
	for _, child := range m.children {
		pids = append(pids, child.PID())
	}
	m.mu.Unlock()
	for _, pid := range pids {
		if pid != 0 {
			_ = supervise.ReturnFilePages(pid) // where the kernel won't, nothing is lost but the saving
		}
	}
}
