// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/dataplane"
	"github.com/pinnace-dev/pinnace/internal/install"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
	ourruntime "github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/supervise"
	"github.com/pinnace-dev/pinnace/test/bench/crifloor/floor"
	"github.com/pinnace-dev/pinnace/test/bench/usage"
	"github.com/pinnace-dev/pinnace/test/node"
)

const (
	image      = "pinnace.dev/bench:v1"
	podCIDR    = "10.213.0.0/16"
	nodeCIDR   = "10.213.0.0/24"
	namespace  = "bench"
	cgroupRoot = cgroup.Pods + "-bench"
	bridge     = "pnbench0"
)

// rig is one API server with Pinnace's manager, and one containerd. Agent and kubelet come and go.
type rig struct {
	settings
	ctx     context.Context
	dir     string
	assets  string
	pinnace string
	plane   *controlplane.ControlPlane
	admin   *rest.Config
	client  client.WithWatch
	// controller makes Pinnace's pods as the manager does: what comes from a checked template isn't checked and tracked once more.
	controller client.Client
	runtime    *node.Node
	recorder   *floor.Recorder
	// lastStart are the CPU seconds (float64) of all when a container was started last.
	lastStart atomic.Value
	account   *account
	manager   supervise.Instance
	undo      []func() error
	// parallel is how many pods at a time CRI alone makes fastest.
	parallel int
}

func newRig(ctx context.Context, s settings, root, program string) (_ *rig, err error) {
	dir, err := os.MkdirTemp("", "pinnace-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{settings: s, ctx: ctx, dir: dir, assets: filepath.Join(root, "bin/assets"), pinnace: program, recorder: &floor.Recorder{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop())
		}
	}()
	for _, program := range []string{r.pinnace, filepath.Join(r.assets, "kubelet")} {
		if _, err := os.Stat(program); err != nil {
			return nil, fmt.Errorf("finding a program (`make build assets peers` builds all that is needed): %w", err)
		}
	}
	// First, so that all that starts is counted.
	if r.account, err = openAccount("pinnace-bench-" + filepath.Base(dir)); err != nil {
		return nil, err
	}
	if err := r.startControlPlane(); err != nil {
		return nil, err
	}
	r.runtime, err = node.Start(ctx, node.Options{Assets: r.assets, PodCIDR: nodeCIDR, Bridge: bridge, Observe: r.observe})
	if err != nil {
		return nil, err
	}
	return r, r.runtime.LoadProgram(ctx, filepath.Join(r.assets, "pause"), image)
}

// startControlPlane starts it as `pinnace up` does, and the manager.
func (r *rig) startControlPlane() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	r.plane, err = controlplane.Start(r.ctx, controlplane.Options{
		Profile: controlplane.Durable, DataDir: filepath.Join(r.dir, "plane"), Assets: r.assets, APIPort: port, AllAPIGroups: true,
	})
	if err != nil {
		return err
	}
	r.admin = r.plane.RESTConfig()
	r.admin.QPS = -1
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return err
	}
	if r.client, err = client.NewWithWatch(r.admin, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if err := install.Install(r.ctx, r.admin, install.Options{}); err != nil {
		return err
	}
	kubeconfig, err := r.plane.Kubeconfig("manager", "system:pinnace:manager")
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the manager's credentials: %w", err)
	}
	config.QPS = -1
	if r.controller, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making the manager's client: %w", err)
	}
	r.manager, err = r.start("manager", r.pinnace, "manager", "--leader-elect=false", "--kubeconfig="+kubeconfig, "--cluster-cidr="+podCIDR)
	if err != nil {
		return err
	}
	if err := r.client.Create(r.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return fmt.Errorf("making the namespace: %w", err)
	}
	// Native pods are refused before their service account is there.
	return r.await("the namespace's service account", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "default"}, &corev1.ServiceAccount{})
	})
}

// start runs a program with the memory settings of `pinnace up`, unless it is upstream's.
func (r *rig) start(name, path string, args ...string) (supervise.Instance, error) {
	p := supervise.Process{
		Name: name, Path: path, Args: args, LogFile: filepath.Join(r.dir, name+".log"), OrphanSignal: syscall.SIGKILL,
		StopTimeout: 20 * time.Second, Prepare: func(c *exec.Cmd) { c.Dir = r.dir },
	}
	if path == r.pinnace {
		p.Env = []string{"GOGC=80"}
	}
	return p.Start(r.ctx)
}

// await asks until there is no error, two minutes at most.
func (r *rig) await(what string, ask func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(r.ctx, 50*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, errors.Join(last, err))
	}
	return nil
}

func (r *rig) observe(method string, took time.Duration, err error) {
	r.recorder.Observe(method, took, err)
	if method == "StartContainer" {
		r.lastStart.Store(r.account.seconds())
	}
}

// calibrate finds the parallelism at which CRI alone is fastest; all rounds use it, so that no round has the best of several.
func (r *rig) calibrate() error {
	var best time.Duration
	for _, level := range []int{2, 4, 8} {
		one, _, err := r.floor(r.Batch, level)
		if err != nil {
			return err
		}
		if r.parallel == 0 || one.Total < best {
			r.parallel, best = level, one.Total
		}
	}
	return nil
}

// floor measures what CRI alone needs, with neither agent nor kubelet, and the CPU of it.
func (r *rig) floor(pods, parallel int) (floor.Result, float64, error) {
	logs := filepath.Join(r.dir, "floor")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return floor.Result{}, 0, err
	}
	// The pods are made as the agent makes them.
	profile, err := ourruntime.WriteSandboxProfile(logs)
	if err != nil {
		return floor.Result{}, 0, err
	}
	var begin float64
	rest := func(ctx context.Context) error {
		err := usage.Quiet(ctx)
		begin = r.account.seconds()
		return err
	}
	o := floor.Options{Image: image, Pods: pods, LogDir: logs, SandboxProfile: profile, Rest: rest}
	one, _, err := floor.Best(r.ctx, r.runtime.CRI, r.recorder, o, []int{parallel}, 1)
	if err != nil {
		return one, 0, fmt.Errorf("measuring the floor: %w", err)
	}
	return one, r.lastStart.Load().(float64) - begin, nil
}

// stop ends and removes everything. It goes on after errors.
func (r *rig) stop() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 3*time.Minute)
	defer cancel()
	var errs []error
	if r.manager != nil {
		errs = append(errs, r.manager.Stop(ctx))
	}
	if r.runtime != nil {
		errs = append(errs, r.runtime.Stop(ctx))
	}
	if r.plane != nil {
		errs = append(errs, r.plane.Stop(ctx))
	}
	if table, err := dataplane.New(dataplane.DefaultTable, ruleset.Config{Family: ruleset.IPv4, NodeName: agentNode}); err == nil {
		errs = append(errs, table.Remove(ctx))
	}
	errs = append(errs, podnetwork.EnsureRoutes(nil), node.RemoveCgroups(floor.Cgroup), node.RemoveCgroups(cgroupRoot), node.RemoveCgroups(kubeletCgroup))
	for i := len(r.undo) - 1; i >= 0; i-- {
		errs = append(errs, r.undo[i]())
	}
	if r.account != nil {
		errs = append(errs, r.account.close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
