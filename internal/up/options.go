// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"io"
	"os"
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
	// PodCIDR is the network of pods; empty means DefaultPodCIDR or SimulatedPodCIDR, as Runtime has it.
	PodCIDR string
	// ServiceCIDR is the network of Pinnace's services.
	ServiceCIDR string
	// AuditPolicyFile turns the API server's audit log on.
	AuditPolicyFile string
	// PlainSecrets turns encryption of secrets at rest off.
	PlainSecrets bool
	// AllAPIGroups also serves the native API groups that Pinnace replaces.
	AllAPIGroups bool
	// AgentArgs are further flags of `pinnace agent`, NAME=VALUE without dashes; they win over ours.
	AgentArgs []string
	// KeepPods leaves containers running at the end.
	KeepPods bool
	// Out is where progress goes.
	Out io.Writer
}

// NewOptions returns the defaults, but for those that depend on other options: complete fills them in, for only an empty field tells
// that nothing was asked for.
func NewOptions() Options {
	return Options{
		DataDir:      DefaultDataDir(),
		AssetsDir:    DefaultAssetsDir(),
		Nodes:        1,
		Runtime:      RuntimeContainerd,
		APIPort:      6443,
		RegistryPort: 5000,
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
