// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/containerd"
	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
	"github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// Options say what to start.
type Options struct {
	// Assets is the folder with containerd, its shim, runc, pause and cni/.
	Assets string
	// PodCIDR defaults to 10.213.1.0/24.
	PodCIDR string
	// Bridge defaults to pntest0.
	Bridge string
	// Observe is called after each CRI call.
	Observe func(method string, took time.Duration, err error)
	// Programs is a folder with another containerd, its shim and runc than those of the assets; empty: $PINNACE_TEST_RUNTIME, and
	// without that the assets.
	Programs string
}

// Node is a running runtime.
type Node struct {
	// CRI drives the runtime.
	CRI *cri.Client
	// Images brings images into its registry.
	Images *image.Client
	// Config is containerd's configuration.
	Config containerd.Config
	// Dir is the temporary folder.
	Dir string
	// PID of containerd.
	PID int

	bridge   string
	server   *image.Server
	process  supervise.Process
	instance supervise.Instance
	// older is a containerd of before 2.0, whose configuration is another.
	older bool
}

// Prerequisites says what is missing for a real runtime; nil means that nothing is.
func Prerequisites(assets string) error {
	if os.Geteuid() != 0 {
		return errors.New("real containers need root")
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "pause", "cni/bridge", "cni/host-local"} {
		if _, err := os.Stat(filepath.Join(assets, name)); err != nil {
			return fmt.Errorf("the asset %s is missing: run `make assets`: %w", name, err)
		}
	}
	return nil
}

// Start starts everything and waits until pods can be run.
func Start(ctx context.Context, o Options) (node *Node, err error) {
	if err := Prerequisites(o.Assets); err != nil {
		return nil, err
	}
	if o.Assets, err = filepath.Abs(o.Assets); err != nil {
		return nil, fmt.Errorf("finding the assets: %w", err)
	}
	if o.PodCIDR == "" {
		o.PodCIDR = "10.213.1.0/24"
	}
	if o.Bridge == "" {
		o.Bridge = "pntest0"
	}
	dir, err := os.MkdirTemp("", "pinnace-node-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the node: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // Users of containers pass through.
		return nil, fmt.Errorf("opening the node's folder: %w", err)
	}
	n := &Node{Dir: dir, bridge: o.Bridge, Config: containerd.ForNode(dir, o.Assets)}
	if err := n.useOtherPrograms(ctx, o.Programs); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if err := n.startRegistry(ctx, o); err != nil {
		return nil, err
	}
	network := podnetwork.Network{PodCIDRs: []string{o.PodCIDR}, Bridge: o.Bridge, LeaseDir: filepath.Join(n.Config.State, "cni")}
	if _, err := network.WriteConf(n.Config.CNIConfDir); err != nil {
		return nil, err
	}
	return n, n.startContainerd(ctx, o)
}

func (n *Node) startRegistry(ctx context.Context, o Options) error {
	certs := filepath.Join(n.Dir, "pki")
	if err := os.MkdirAll(certs, 0o700); err != nil {
		return fmt.Errorf("making the folder of certificates: %w", err)
	}
	now := time.Now()
	authority, err := pki.OpenAuthority(certs, "registry-ca", now)
	if err != nil {
		return err
	}
	serving, err := authority.EnsureLeaf(certs, pki.Leaf{Name: "registry", CommonName: "registry", Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, now)
	if err != nil {
		return err
	}
	client, err := authority.EnsureLeaf(certs, pki.Leaf{Name: "registry-client", CommonName: "node", Client: true}, now)
	if err != nil {
		return err
	}
	config, err := image.ServerTLS(serving.CertFile, serving.KeyFile, authority.CertFile())
	if err != nil {
		return err
	}
	registry, err := image.OpenRegistry(filepath.Join(n.Dir, "registry"))
	if err != nil {
		return err
	}
	if n.server, err = registry.Serve([]string{"127.0.0.1:0"}, config); err != nil {
		return err
	}
	info := image.Info{Addresses: n.server.Addresses(), CAFile: authority.CertFile(), ClientCertFile: client.CertFile, ClientKeyFile: client.KeyFile}
	if n.Images, err = image.NewClient(info); err != nil {
		return err
	}
	if err := image.WriteHosts(n.Config.RegistryConfigDir, info.Addresses[0], info); err != nil {
		return err
	}
	return n.Images.PushPause(ctx, filepath.Join(o.Assets, "pause"))
}

func (n *Node) startContainerd(ctx context.Context, o Options) error {
	if err := errors.Join(n.Config.CheckPrograms(), n.Config.Write()); err != nil {
		return err
	}
	if n.older {
		if err := n.writeOlderConfig(); err != nil {
			return err
		}
	}
	var options []cri.Option
	if o.Observe != nil {
		options = append(options, cri.WithObserver(o.Observe))
	}
	client, err := cri.Dial(n.Config.Endpoint(), options...)
	if err != nil {
		return err
	}
	n.CRI = client
	n.process = supervise.Process{
		Name: "containerd", Path: n.Config.Program, Args: n.Config.Args(), Env: n.Config.Env(filepath.Dir(n.Config.Shim) + ":" + o.Assets + ":" + os.Getenv("PATH")),
		LogFile: n.Config.LogFile, Ready: client.Ready, StartTimeout: 20 * time.Second, OrphanSignal: syscall.SIGTERM,
	}
	return n.run(ctx)
}

func (n *Node) run(ctx context.Context) (err error) {
	if n.instance, err = n.process.Start(ctx); err != nil {
		return fmt.Errorf("starting containerd: %w; its log ends with:\n  %s", err, strings.Join(supervise.Tail(n.Config.LogFile, 10), "\n  "))
	}
	n.PID = n.instance.PID()
	return nil
}

// Restart ends containerd with a signal and starts it again; what runs in pods runs on.
func (n *Node) Restart(ctx context.Context, signal syscall.Signal) error {
	return n.RestartAfter(ctx, signal, func() error { return nil })
}

// RestartAfter does something between the end of containerd and its start.
func (n *Node) RestartAfter(ctx context.Context, signal syscall.Signal, meanwhile func() error) error {
	if err := syscall.Kill(n.PID, signal); err != nil {
		return fmt.Errorf("ending containerd: %w", err)
	}
	select {
	case <-n.instance.Done():
	case <-ctx.Done():
		return fmt.Errorf("containerd does not end by %s: %w", signal, ctx.Err())
	}
	return errors.Join(meanwhile(), n.run(ctx))
}

// LoadProgram makes an image of one static program and puts it into the registry.
func (n *Node) LoadProgram(ctx context.Context, path, ref string) error {
	built, err := image.Binary{Path: path, User: "0:0"}.Build()
	if err != nil {
		return err
	}
	reference, err := image.ParseReference(ref)
	if err != nil {
		return err
	}
	return n.Images.Push(ctx, reference, built)
}

// RSS is the resident memory of containerd in bytes, without that of shims.
func (n *Node) RSS() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID))
	if err != nil {
		return 0, fmt.Errorf("reading containerd's memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); err == nil {
			return kilobytes << 10, nil
		}
	}
	return 0, errors.New("the kernel doesn't say how much memory containerd has")
}

// Stop removes all pods, ends what runs and removes what was made. It goes on after errors and returns all of them.
func (n *Node) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var failures []error
	if n.instance != nil {
		failures = append(failures, n.removePods(ctx), n.instance.Stop(ctx))
	}
	if n.CRI != nil {
		failures = append(failures, n.CRI.Close())
	}
	if n.server != nil {
		failures = append(failures, n.server.Close(ctx))
	}
	for _, dir := range []string{n.Config.State, n.Dir} {
		failures = append(failures, unmountBelow(dir), os.RemoveAll(dir))
	}
	// The bridge is there only once a pod was.
	if _, err := net.InterfaceByName(n.bridge); err == nil {
		failures = append(failures, exec.Command("ip", "link", "delete", n.bridge).Run())
	}
	return errors.Join(failures...)
}

func (n *Node) removePods(ctx context.Context) error {
	sandboxes, err := n.CRI.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing what to remove: %w", err)
	}
	var failures []error
	containers, err := n.CRI.ListContainers(ctx, &runtimeapi.ContainerFilter{})
	failures = append(failures, err)
	for _, c := range containers {
		failures = append(failures, n.CRI.StopContainer(ctx, c.GetId(), 0))
	}
	for _, s := range sandboxes {
		failures = append(failures, n.CRI.StopPodSandbox(ctx, s.GetId()), n.CRI.RemovePodSandbox(ctx, s.GetId()))
	}
	return errors.Join(failures...)
}

// RemoveCgroups removes a cgroup that pods were put below, from every hierarchy; the runtime never does. It must be empty.
func RemoveCgroups(name string) error {
	var failures []error
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		paths, err := filepath.Glob(pattern)
		failures = append(failures, err)
		for _, path := range paths {
			// A cgroup is removed by rmdir, from the leaves up; what looks like files in it is none.
			failures = append(failures, exec.Command("find", path, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run())
		}
	}
	return errors.Join(failures...)
}

// unmountBelow takes away what a runtime that failed left mounted, so that removing the folder removes nothing else.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("listing the mounts: %w", err)
	}
	var failures []error
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			failures = append(failures, unix.Unmount(fields[1], unix.MNT_DETACH))
		}
	}
	return errors.Join(failures...)
}
