// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/internal/install"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// stopTimeout bounds the whole of stopping.
const stopTimeout = 2 * time.Minute

// nodesTimeout bounds the wait for the nodes to become Ready.
const nodesTimeout = 2 * time.Minute

// machine is one run of Pinnace on this machine.
type machine struct {
	options Options
	report  *report
	program string // this program, for the manager and the agents

	plane *controlplane.ControlPlane
	nodes []*node
	// segment joins the nodes that have a network of their own.
	segment podnetwork.Segment
	// registry says how to reach the image registry.
	registry image.Info
	// mu guards what nodes that start at the same time add to.
	mu sync.Mutex
	// stops ends what was started, last first.
	stops []stop
	// children are the processes that the control plane doesn't supervise.
	children []*supervise.Supervisor
	// failed gets the first process that can't be kept running.
	failed chan error
}

type stop struct {
	name string
	do   func(context.Context) error
}

// Run starts everything, stays until the context ends or a process can't be kept running, and stops everything. What
// was started is stopped too when a later step fails. Errors are sentences for the person at the terminal.
func Run(ctx context.Context, o Options) (err error) {
	// What libraries log is for programs with a log; the one line that matters is in the error.
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	m := &machine{options: o, report: &report{out: o.Out, start: time.Now()}, failed: make(chan error, 1)}
	if err := m.options.complete(); err != nil {
		return err
	}
	if m.program, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	release, err := controlplane.LockDataDir(m.options.DataDir)
	if err != nil {
		return err
	}
	defer release()
	if m.options.real() {
		free, err := holdMachine()
		if err != nil {
			return err
		}
		defer free()
	}
	defer func() { err = errors.Join(err, m.stop(ctx, err)) }()

	m.report.say("Pinnace starts on this machine; its data is in %s.", m.options.DataDir)
	if err := m.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C while starting is no failure.
		}
		return err
	}
	go m.returnStartupMemory(ctx)
	select {
	case <-ctx.Done():
		return nil
	case err := <-m.failed:
		return err
	case err := <-m.plane.Failed():
		return err
	}
}

// start runs the phases in order; each pushes how to undo it.
func (m *machine) start(ctx context.Context) error {
	phases := []struct {
		name string
		do   func(context.Context) error
	}{
		{"", m.checkPrograms},
		{"", m.checkRegistryPort},
		{"", m.checkRuntime},
		{"", m.startNetwork},
		{"", m.startControlPlane},
		{"Installing Pinnace's kinds, roles and policies", m.install},
		{"", m.startRegistry},
		{"", m.startRuntimes},
		{"Starting the manager", m.startManager},
		{"Starting " + agents(m.options.Nodes), m.startAgents},
		{"Waiting for " + countNodes(m.options.Nodes) + " to become Ready", m.awaitNodes},
	}
	for _, phase := range phases {
		done := func(error) {}
		if phase.name != "" {
			done = m.report.step(phase.name)
		}
		err := phase.do(ctx)
		done(err)
		if err != nil {
			return err
		}
	}
	m.greet()
	return nil
}

func (m *machine) startControlPlane(ctx context.Context) error {
	o := controlplane.Options{
		Profile:         controlplane.Durable,
		DataDir:         m.options.DataDir,
		Assets:          m.options.AssetsDir,
		APIPort:         m.options.APIPort,
		AuditPolicyFile: m.options.AuditPolicyFile,
		PlainSecrets:    m.options.PlainSecrets,
		AllAPIGroups:    m.options.AllAPIGroups,
		Progress:        func(step string) func(error) { return m.report.step(step) },
		OnProcess:       m.onProcess,
		OnCertificate: func(e controlplane.CertificateEvent) {
			if e.Err != nil {
				m.report.say("The certificate %s could not be renewed: %v", e.Name, e.Err)
			}
		},
	}
	if m.options.namespaced() {
		// Nodes with a network of their own don't reach this machine's loopback.
		o.BindAddress = m.segment.HostAddress().String()
		o.ServerNames = []string{"127.0.0.1", "localhost"}
	}
	plane, err := controlplane.Start(ctx, o)
	if err != nil {
		return err
	}
	m.plane = plane
	m.push("", plane.Stop)
	m.report.say("The API answers:\n  export KUBECONFIG=%s", plane.KubeconfigPath())
	return nil
}

func (m *machine) install(ctx context.Context) error {
	return install.Install(ctx, m.plane.RESTConfig(), install.Options{Simulator: !m.options.real()})
}

// onProcess tells the person of processes that die and come back.
func (m *machine) onProcess(e supervise.Event) {
	switch e.State {
	case supervise.Restarting:
		m.report.say("%s ended (%v) and is started again; its log is in %s", e.Name, e.Err, filepath.Join(m.options.DataDir, "log"))
	case supervise.Running, supervise.Starting, supervise.Stopped, supervise.Failed:
		// The steps and the final error say these.
	}
}

func (m *machine) push(name string, do func(context.Context) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stops = append(m.stops, stop{name, do})
}

// stop ends everything, last started first. It goes on when one of them fails.
func (m *machine) stop(ctx context.Context, cause error) error {
	if len(m.stops) == 0 {
		return nil
	}
	if cause != nil {
		m.report.say("Stopping, since something failed.")
	} else {
		m.report.say("Stopping.")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	var errs []error
	for i := len(m.stops) - 1; i >= 0; i-- {
		done := func(error) {}
		if name := m.stops[i].name; name != "" {
			done = m.report.step(name)
		}
		err := m.stops[i].do(ctx)
		done(err)
		errs = append(errs, err)
	}
	m.report.say("Stopped. What was stored is kept in %s.", m.options.DataDir)
	return errors.Join(errs...)
}

// greet says what to do next.
func (m *machine) greet() {
	kubectl := filepath.Join(m.options.AssetsDir, "kubectl")
	m.report.say(`Pinnace is up after %.1f s: %s, Ready.

In another terminal:
  export KUBECONFIG=%s
  %s get pno                        # the nodes
  pinnace convert -f app.yaml | %[4]s apply --server-side -f -
  %[4]s get pinnace -A                  # everything that Pinnace runs`,
		m.report.elapsed().Seconds(), countNodes(m.options.Nodes), m.plane.KubeconfigPath(), kubectl)
	if m.options.real() && m.options.RuntimeEndpoint == "" {
		m.report.say("  pinnace image load %sFILE.tar         # an image from `docker save`", m.dataDirFlag())
	}
	m.report.say("\nCtrl-C stops everything%s.", map[bool]string{true: " but the containers", false: ""}[m.options.KeepPods])
}

func (m *machine) dataDirFlag() string {
	if m.options.DataDir == DefaultDataDir() {
		return ""
	}
	return "--data-dir " + m.options.DataDir + " "
}

func countNodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func agents(n int) string {
	if n == 1 {
		return "the node agent"
	}
	return fmt.Sprintf("%d node agents", n)
}
