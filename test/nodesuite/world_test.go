// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	agentnode "github.com/pinnace-dev/pinnace/controllers/agent/node"
	"github.com/pinnace-dev/pinnace/internal/dataplane"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
	"github.com/pinnace-dev/pinnace/internal/setup"
	"github.com/pinnace-dev/pinnace/internal/supervise"
	"github.com/pinnace-dev/pinnace/test/env"
	"github.com/pinnace-dev/pinnace/test/node"
)

const (
	nodeName = "suite-1"
	bridge   = "pnsuite0"
	podCIDR  = "10.215.0.0/16"
	// packetTable isn't the one of a Pinnace that runs on the same machine, such as an end-to-end test's.
	packetTable = "pnsuite"
)

// cgroupRoot is the parent of the suite's pods, this run's own.
var cgroupRoot = fmt.Sprintf("/pinnace-suite-%d", os.Getpid())

// agentVariable makes the test's own program the agent: as a process of its own it can be killed.
const agentVariable = "PINNACE_SUITE_AGENT"

var width = flag.Int("width", 24, "how many cases run at a time")

func TestMain(m *testing.M) {
	if text := os.Getenv(agentVariable); text != "" {
		os.Exit(runAgent(text))
	}
	if os.Getenv(shimVariable) != "" {
		_ = unix.Pause() // It is ended by a signal.
		os.Exit(0)
	}
	flag.Parse()
	ctrllog.SetLogger(logr.Discard()) // What a manager of the suite's own starts and stops is no news.
	// Cases wait most of the time: as many at a time as CPUs would be too few.
	if err := flag.Set("test.parallel", fmt.Sprint(*width)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(env.Main(m, env.WithScheme(setup.NewScheme()), env.WithControllerManager()))
}

func runAgent(text string) int {
	var o setup.AgentOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := setup.RunAgent(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// world is the machine.
type world struct {
	env    *env.Env
	client client.Client
	node   *node.Node
	// dir is where cases have folders on the host, on a file system whose mounts containers may share.
	dir string
	// registry is one that asks for a password.
	registry *registry

	// options are those of the agent, unless a disturbance has it run with others.
	options setup.AgentOptions
	agent   supervise.Process
	mu      sync.Mutex
	running supervise.Instance
}

// newWorld starts everything; what it made is gone when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	assets := filepath.Join(root, "bin", "assets")
	if err := node.Prerequisites(assets); err != nil {
		if os.Getenv("CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: %v ***\n\n", t.Name(), err)
		t.Skip(err)
	}
	e := env.Start(t)
	w := &world{env: e, client: e.Client}
	if w.node, err = node.Start(t.Context(), node.Options{Assets: assets, Bridge: bridge, PodCIDR: podCIDR}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.tail(t)
		}
		if err := w.node.Stop(context.Background()); err != nil {
			t.Errorf("stopping the runtime: %v", err)
		}
		for id, pid := range w.shims() {
			t.Errorf("the shim %d of %s is left when the runtime has ended", pid, id)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := node.RemoveCgroups(strings.TrimPrefix(cgroupRoot, "/")); err != nil {
			t.Errorf("removing the suite's cgroups: %v", err)
		}
	})
	w.makeDir(t)
	// Installing Pinnace makes it.
	leases := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentnode.LeaseNamespace}}
	if err := client.IgnoreAlreadyExists(e.Client.Create(t.Context(), leases)); err != nil {
		t.Fatal(err)
	}
	w.registry = serveRegistry(t)
	w.loadImages(t)
	w.startAgent(t)
	return w
}

// makeDir makes the folder of the cases: a mount of its own, shared, as a host's root is where systemd runs.
func (w *world) makeDir(t *testing.T) {
	t.Helper()
	w.dir = filepath.Join(w.node.Dir, "cases")
	err := errors.Join(
		os.MkdirAll(w.dir, 0o755),
		unix.Mount("tmpfs", w.dir, "tmpfs", 0, "mode=0755"),
		unix.Mount("", w.dir, "", unix.MS_SHARED, ""),
	)
	if err != nil {
		t.Fatalf("making the folder of the cases: %v", err)
	}
}

func (w *world) dataDir() string { return filepath.Join(w.node.Dir, "agent") }

func (w *world) startAgent(t *testing.T) {
	t.Helper()
	o := setup.NewAgentOptions()
	o.Kubeconfig, o.NodeName, o.DataDir, o.RuntimeEndpoint = w.env.Kubeconfig, nodeName, w.dataDir(), w.node.Config.Endpoint()
	o.ClusterCIDR, o.ServiceCIDR, o.PacketTable, o.CgroupRoot = podCIDR, "10.216.0.0/16", packetTable, cgroupRoot
	// The node has written the configuration of its network already.
	o.CNIConfDir = w.node.Config.CNIConfDir
	adapt(&o)
	w.options = o
	if err := w.setAgent(o); err != nil {
		t.Fatal(err)
	}
	if err := w.runAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.stopAgent(context.Background()); err != nil {
			t.Errorf("stopping the agent: %v", err)
		}
		if err := removePackets(); err != nil {
			t.Errorf("removing the suite's packet rules: %v", err)
		}
	})
	err := poll(t.Context(), time.Minute, func(ctx context.Context) error {
		var n pcorev1.Node
		if err := w.client.Get(ctx, types.NamespacedName{Name: nodeName}, &n); err != nil {
			return err
		}
		if !nodeReady(&n) {
			return errors.New("the node is not Ready")
		}
		return nil
	})
	if err != nil {
		w.tail(t)
		t.Fatal(err)
	}
}

func removePackets() error {
	table, err := dataplane.New(packetTable, ruleset.Config{})
	if err != nil {
		return err
	}
	return table.Remove(context.Background())
}

func nodeReady(n *pcorev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

func (w *world) runAgent(ctx context.Context) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running, err = w.agent.Start(ctx)
	return err
}

func (w *world) stopAgent(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		return nil
	}
	err := w.running.Stop(ctx)
	w.running = nil
	return err
}

// killAgent ends the agent as a crash would.
func (w *world) killAgent(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := syscall.Kill(w.running.PID(), syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-w.running.Done():
		w.running = nil
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tail prints the ends of the logs, whose folder goes.
func (w *world) tail(t *testing.T) {
	t.Helper()
	for _, path := range []string{w.agent.LogFile, w.node.Config.LogFile} {
		if path != "" {
			t.Logf("--- the end of %s:\n%s", filepath.Base(path), strings.Join(supervise.Tail(path, 40), "\n"))
		}
	}
}

func (w *world) loadImages(t *testing.T) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "testprog")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../agent/testprog")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test's program: %v\n%s", err, out)
	}
	if err := pushImages(t.Context(), w, program); err != nil {
		t.Fatal(err)
	}
}

// progress goes to the terminal, not into the log of a test that passes.
var progress io.Writer = os.Stderr
