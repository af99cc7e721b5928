// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed" // kwok's stages
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pinnace-dev/pinnace/internal/controlplane"
	"github.com/pinnace-dev/pinnace/internal/install"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// The sides that can be measured.
const (
	pinnace = "pinnace"
	// upstream has its clients' limits lifted; upstreamDefaults keeps them as they come (50 requests a second of the
	// scheduler, 20 of the controllers).
	upstream         = "upstream"
	upstreamDefaults = "upstream-defaults"
	// upstream has the least that could stand for kubelets: one status write a pod. upstreamKubelet has what writes as much as a kubelet does.
	upstreamKubelet = "upstream-kubelet"
	// upstreamKwok has kwok.
	upstreamKwok = "upstream-kwok"
)

var defaultSides = []string{pinnace, upstreamDefaults, upstream, upstreamKubelet, upstreamKwok}

// starts has what each side starts on its API server.
var starts = map[string]func(*side) error{
	pinnace:          (*side).startPinnace,
	upstream:         func(d *side) error { return d.startUpstream(true, d.startKubelets) },
	upstreamDefaults: func(d *side) error { return d.startUpstream(false, d.startKubelets) },
	upstreamKubelet:  func(d *side) error { return d.startUpstream(true, d.startFullKubelets) },
	upstreamKwok:     func(d *side) error { return d.startUpstream(true, d.startKwok) },
}

func allSides() []string { return slices.Sorted(maps.Keys(starts)) }

// side is one API server with all that works on it.
type side struct {
	settings
	ctx   context.Context
	name  string
	dir   string
	nodes int
	plane *controlplane.ControlPlane
	admin *rest.Config
	// suffix is what upstream's API groups become on this side: empty, or Pinnace's.
	suffix   string
	children []*supervise.Supervisor
	program  map[string]int
}

// startSide starts an API server with everything that one side needs, and waits until all nodes are ready.
func startSide(ctx context.Context, s settings, name string, nodes int) (_ *side, err error) {
	dir, err := os.MkdirTemp("", "pinnace-bench-"+name+"-")
	if err != nil {
		return nil, err
	}
	d := &side{settings: s, ctx: ctx, name: name, dir: dir, nodes: nodes, program: map[string]int{}}
	defer func() {
		if err != nil {
			d.keep = true // the logs say why
			err = errors.Join(fmt.Errorf("%w (logs are in %s)", err, dir), d.stop())
		}
	}()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	d.plane, err = controlplane.Start(ctx, controlplane.Options{
		Profile: controlplane.Durable, DataDir: dir, Assets: s.assets, APIPort: port,
		AllAPIGroups: true, NoControllerManager: true,
		Tuning:             controlplane.Tuning{EtcdGOGC: "100", APIServerGOGC: "100", ControllerManagerGOGC: "100"},
		ExtraAPIServerArgs: map[string]string{"profiling": "true"},
	})
	if err != nil {
		return nil, err
	}
	for _, p := range d.plane.Processes() {
		d.program[p.Name] = p.PID
	}
	d.admin = d.plane.RESTConfig()
	d.admin.QPS = -1
	if err := starts[name](d); err != nil {
		return nil, err
	}
	return d, d.awaitNodes()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// startPinnace installs Pinnace and runs its manager, all simulated nodes, and the generic loops.
func (d *side) startPinnace() error {
	d.suffix = ".pinnace.dev"
	if err := install.Install(d.ctx, d.admin, install.Options{Simulator: true}); err != nil {
		return err
	}
	if err := d.startControllerManager(controlplane.GenericControllers, true); err != nil {
		return err
	}
	manager, err := d.plane.Kubeconfig("manager", "system:pinnace:manager")
	if err != nil {
		return err
	}
	simulator, err := d.plane.Kubeconfig("simulator", "system:pinnace:simulator")
	if err != nil {
		return err
	}
	network := "--cluster-cidr=" + podCIDR
	err = d.start("manager", d.pinnace, nil, "manager", "--leader-elect=false", "--kubeconfig="+manager, network)
	if err != nil {
		return err
	}
	return d.start("agent", d.pinnace, nil, "agent", "--kubeconfig="+simulator, "--node-name=node",
		"--simulate="+strconv.Itoa(d.nodes), network, "--data-dir="+filepath.Join(d.dir, "nodes"))
}

//go:embed kwok.yaml
var kwokStages []byte

// podCIDR has a /24 for each of 1,024 nodes.
const podCIDR = "10.128.0.0/14"

// workloadControllers are upstream's loops for what Pinnace's manager does, too.
var workloadControllers = []string{
	"deployment-controller", "replicaset-controller", "replicationcontroller-controller", "statefulset-controller", "daemonset-controller",
	"job-controller", "cronjob-controller", "disruption-controller",
	"endpointslice-controller", "endpointslice-mirroring-controller", "node-lifecycle-controller", "node-ipam-controller", "pod-garbage-collector-controller",
}

// startUpstream runs kube-controller-manager, kube-scheduler and something in place of kubelets.
func (d *side) startUpstream(unlimited bool, startNodes func() error) error {
	if err := d.startControllerManager(append(slices.Clone(controlplane.GenericControllers), workloadControllers...), unlimited); err != nil {
		return err
	}
	kubeconfig, err := d.plane.Kubeconfig("kube-scheduler", "system:kube-scheduler")
	if err != nil {
		return err
	}
	args := []string{"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--secure-port=0"}
	if unlimited {
		args = append(args, "--kube-api-qps=5000", "--kube-api-burst=10000")
	}
	if err := d.start("kube-scheduler", filepath.Join(d.assets, "kube-scheduler"), nil, args...); err != nil {
		return err
	}
	if err := d.makeNativeNodes(); err != nil {
		return err
	}
	return startNodes()
}

func (d *side) startKwok() error {
	stages := filepath.Join(d.dir, "kwok.yaml")
	if err := os.WriteFile(stages, kwokStages, 0o644); err != nil {
		return err
	}
	return d.start("kwok", filepath.Join(d.assets, "kwok"), []string{"HOME=" + d.dir}, "--config="+stages, "--kubeconfig="+d.plane.KubeconfigPath(),
		"--manage-all-nodes=true", "--node-lease-duration-seconds=40", "--cidr="+podCIDR)
}

func (d *side) startKubelets() error { return d.startSelf("kubelets", d.plane.KubeconfigPath()) }

func (d *side) startFullKubelets() error {
	return d.startSelf("kubelets", d.plane.KubeconfigPath(), "full")
}

// startSelf runs this program in another role.
func (d *side) startSelf(role string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return d.start(role, self, nil, append([]string{role}, args...)...)
}

func (d *side) startControllerManager(controllers []string, unlimited bool) error {
	kubeconfig, err := d.plane.Kubeconfig("kube-controller-manager", "system:kube-controller-manager")
	if err != nil {
		return err
	}
	pki := func(name string) string { return filepath.Join(d.dir, "pki", name) }
	args := []string{
		"--kubeconfig=" + kubeconfig, "--controllers=" + strings.Join(controllers, ","), "--use-service-account-credentials=true",
		"--service-account-private-key-file=" + pki("sa.key"), "--root-ca-file=" + pki(controlplane.ClusterAuthority+".crt"),
		"--cluster-signing-cert-file=" + pki(controlplane.ClusterAuthority+".crt"), "--cluster-signing-key-file=" + pki(controlplane.ClusterAuthority+".key"),
		"--leader-elect=false", "--secure-port=0", "--allocate-node-cidrs=true", "--cluster-cidr=" + podCIDR,
	}
	if unlimited {
		args = append(args, "--kube-api-qps=5000", "--kube-api-burst=10000")
	}
	return d.start(controlplane.ControllerManager, filepath.Join(d.assets, controlplane.ControllerManager), nil, args...)
}

// start runs a program of the side until the side is stopped.
func (d *side) start(name, path string, environment []string, args ...string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("finding %s (`make build assets peers` builds all that is needed): %w", name, err)
	}
	if d.profiles != "" && (name == "manager" || name == "agent") {
		// The same code, run by this program, which can profile itself.
		self, err := os.Executable()
		if err != nil {
			return err
		}
		path, args = self, append([]string{"profiled"}, args...)
		environment = append(environment, profileEnv+"="+filepath.Join(d.profiles, d.name+"-"+name+".pprof"))
	}
	s, err := supervise.Run(d.ctx, supervise.Process{
		Name: name, Path: path, Args: args, Env: environment,
		LogFile: filepath.Join(d.dir, "log", name+".log"), OrphanSignal: syscall.SIGKILL,
		Prepare: func(c *exec.Cmd) { c.Dir = d.dir },
	}, supervise.Options{Policy: &supervise.Never})
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	d.children = append(d.children, s)
	d.program[name] = s.PID()
	return nil
}

// makeNativeNodes makes nodes as a kubelet would register them, Ready at once. They are as large as Pinnace's simulated ones.
func (d *side) makeNativeNodes() error {
	c, err := kubernetes.NewForConfig(d.admin)
	if err != nil {
		return err
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"), corev1.ResourcePods: resource.MustParse("110"),
	}
	for i := range d.nodes {
		name := fmt.Sprintf("node-%d", i+1)
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux",
			}},
			Status: corev1.NodeStatus{
				Capacity: room, Allocatable: room,
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", i%250+1)}, {Type: corev1.NodeHostName, Address: name}},
			},
		}
		if _, err := c.CoreV1().Nodes().Create(d.ctx, node, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("making node %s: %w", name, err)
		}
	}
	return nil
}

// stop ends all processes of the side, the last started first.
func (d *side) stop() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), time.Minute)
	defer cancel()
	var errs []error
	for _, s := range slices.Backward(d.children) {
		errs = append(errs, s.Stop(ctx))
	}
	if d.plane != nil {
		errs = append(errs, d.plane.Stop(ctx))
	}
	if !d.keep {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
