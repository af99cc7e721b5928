// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// The runtimes that nodes can have.
const (
	RuntimeContainerd = "containerd"
	RuntimeSimulated  = "simulated"
)

// MaxNodes bounds real nodes on one machine: each has a containerd, an agent and a network of its own.
const MaxNodes = 16

// MaxSimulatedNodes bounds simulated nodes: beyond, SimulatedPodCIDR has no /24 left for each.
const MaxSimulatedNodes = 1000

// The networks of all pods unless the user chooses another. Simulated nodes may be many, and no packet ever goes to their pods, so
// theirs is wider.
const (
	DefaultPodCIDR   = "10.244.0.0/16"
	SimulatedPodCIDR = "10.128.0.0/14"
)

// Options say what to run. The zero value is not usable: NewOptions has the defaults.
type Options struct {
	// DataDir holds everything that survives a restart.
	DataDir string
	// AssetsDir holds the programs that `make assets` builds.
	AssetsDir string
	// Nodes is how many nodes there are; more than one real node gets a network namespace each.
	Nodes int
	// Runtime is RuntimeContainerd or RuntimeSimulated.
	Runtime string
	// RuntimeEndpoint uses a runtime that is already there, unix:///path, instead of starting containerd. One node only.
	RuntimeEndpoint string
	// APIPort is kube-apiserver's port, RegistryPort the image registry's.
	APIPort, RegistryPort int
	// PodCIDR and ServiceCIDR are the networks of pods and of Pinnace's services.
	PodCIDR, ServiceCIDR string
	// AuditPolicyFile turns the API server's audit log on.
	AuditPolicyFile string
	// PlainSecrets turns encryption of secrets at rest off.
	PlainSecrets bool
	// AllAPIGroups also serves the native API groups that Pinnace replaces.
	AllAPIGroups bool
	// KeepPods leaves containers running at the end.
	KeepPods bool
	// Out is where progress goes.
	Out io.Writer
}

// NewOptions returns the defaults.
func NewOptions() Options {
	return Options{
		DataDir:      DefaultDataDir(),
		AssetsDir:    DefaultAssetsDir(),
		Nodes:        1,
		Runtime:      RuntimeContainerd,
		APIPort:      6443,
		RegistryPort: 5000,
		PodCIDR:      DefaultPodCIDR,
		ServiceCIDR:  "10.97.0.0/16",
		Out:          os.Stdout,
	}
}

// DefaultDataDir is /var/lib/pinnace for root, and a folder in the user's home for others.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/pinnace"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "pinnace")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "pinnace-data"
	}
	return filepath.Join(home, ".local", "share", "pinnace")
}

// DefaultAssetsDir is $KUBEBUILDER_ASSETS, else the folder assets beside this program.
func DefaultAssetsDir() string {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir
	}
	program, err := os.Executable()
	if err != nil {
		return "assets"
	}
	if resolved, err := filepath.EvalSymlinks(program); err == nil {
		program = resolved
	}
	return filepath.Join(filepath.Dir(program), "assets")
}

// real says whether containers run.
func (o *Options) real() bool { return o.Runtime == RuntimeContainerd }

// namespaced says whether each node has a network namespace of its own.
func (o *Options) namespaced() bool { return o.real() && o.Nodes > 1 }

// complete checks what can be checked before anything starts, and makes paths absolute.
func (o *Options) complete() error {
	for _, dir := range []*string{&o.DataDir, &o.AssetsDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("finding the folder %s: %w", *dir, err)
		}
		*dir = abs
	}
	if o.Runtime != RuntimeContainerd && o.Runtime != RuntimeSimulated {
		return fmt.Errorf("--runtime %q is unknown: choose %s or %s", o.Runtime, RuntimeContainerd, RuntimeSimulated)
	}
	limit := MaxNodes
	if !o.real() {
		limit = MaxSimulatedNodes
		if o.PodCIDR == DefaultPodCIDR {
			o.PodCIDR = SimulatedPodCIDR
		}
	}
	if o.Nodes < 1 || o.Nodes > limit {
		return fmt.Errorf("--nodes %d is out of range: 1 to %d with --runtime %s", o.Nodes, limit, o.Runtime)
	}
	if o.RuntimeEndpoint != "" && (!o.real() || o.Nodes > 1) {
		return errors.New("--runtime-endpoint names the one runtime of one node: leave out --nodes and --runtime simulated")
	}
	if o.APIPort == o.RegistryPort {
		return fmt.Errorf("--api-port and --registry-port are both %d: give them different ports", o.APIPort)
	}
	if o.RegistryPort < 1 || o.RegistryPort > 65535 {
		return fmt.Errorf("--registry-port %d is not between 1 and 65535", o.RegistryPort)
	}
	if err := o.checkNetworks(); err != nil {
		return err
	}
	return o.checkMachine()
}

func (o *Options) checkNetworks() error {
	var prefixes []netip.Prefix
	for _, network := range []struct{ flag, value string }{{"--pod-cidr", o.PodCIDR}, {"--service-cidr", o.ServiceCIDR}} {
		prefix, err := netip.ParsePrefix(network.value)
		if err != nil || prefix != prefix.Masked() {
			return fmt.Errorf("%s %q is no network: give one such as 10.244.0.0/16", network.flag, network.value)
		}
		prefixes = append(prefixes, prefix)
	}
	if prefixes[0].Overlaps(prefixes[1]) {
		return fmt.Errorf("--pod-cidr %s and --service-cidr %s overlap: choose networks that have no address in common", o.PodCIDR, o.ServiceCIDR)
	}
	return nil
}

func (o *Options) checkMachine() error {
	if !o.real() {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("running containers needs root: start it with sudo, or simulate the nodes with --runtime simulated")
	}
	for program, pkg := range map[string]string{"nft": "nftables", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("the program %s is missing: install it with `apt-get install %s`", program, pkg)
		}
	}
	return nil
}
