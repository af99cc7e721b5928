// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/utils/clock"

	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// Profile chooses between a control plane that people keep data in and one
// that a test throws away.
type Profile string

const (
	// Durable keeps everything in DataDir through restarts, secured and supervised.
	Durable Profile = "durable"
	// Ephemeral uses envtest's own defaults in a temporary folder that Stop
	// removes. A process that dies is reported on Failed and not restarted.
	Ephemeral Profile = "ephemeral"
)

// DefaultAPIPort is where kube-apiserver listens unless told otherwise.
const DefaultAPIPort = 6443

// Names of the processes, as events and Processes carry them.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
)

// GenericControllers are the loops of kube-controller-manager that Pinnace
// uses as they are: those that serve any kind of object.
var GenericControllers = []string{
	"namespace-controller",
	"garbage-collector-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"root-ca-certificate-publisher-controller",
	"certificatesigningrequest-signing-controller",
	"certificatesigningrequest-approving-controller",
	"certificatesigningrequest-cleaner-controller",
	"clusterrole-aggregation-controller",
}

// Progress is told when a step starts, and returns a function that is told
// how it ended. This room prints nothing itself.
type Progress func(step string) (done func(error))

// Options say what to start. The zero value of each field is a good default,
// except DataDir, which the durable profile needs.
type Options struct {
	Profile Profile
	// DataDir holds everything that the durable profile keeps.
	DataDir string
	// Assets is the folder of the programs; empty means $KUBEBUILDER_ASSETS.
	Assets string

	// BindAddress is the IP address on which kube-apiserver listens; it defaults to 127.0.0.1.
	BindAddress string
	// APIPort is kube-apiserver's port; it defaults to DefaultAPIPort.
	APIPort int
	// PortFlag is how the user changes the port; errors name it. It defaults to --api-port.
	PortFlag string
	// ServerNames are further DNS names and IP addresses under which clients
	// reach kube-apiserver; its certificate carries them.
	ServerNames []string
	// ServiceCIDR is for native Services; it defaults to 10.96.0.0/16.
	ServiceCIDR string
	// Issuer of service account tokens. It must not change, or every token in
	// use dies; it defaults to https://kubernetes.default.svc.cluster.local.
	Issuer string

	// AuditPolicyFile turns auditing on, into log/audit.log of the data folder.
	AuditPolicyFile string
	// PlainSecrets turns encryption at rest off for what is written from now on.
	PlainSecrets bool
	// AllAPIGroups serves the native groups too that Pinnace replaces.
	AllAPIGroups bool
	// NoControllerManager leaves kube-controller-manager out. With the
	// ephemeral profile it is out unless StartControllerManager is called.
	NoControllerManager bool
	// ExtraAPIServerArgs are further flags, name without dashes to value; they win over ours.
	ExtraAPIServerArgs map[string]string

	// Tuning sets the memory of each process.
	Tuning Tuning

	// ReturnStartupPages gives back, some seconds after each start of a process,
	// the memory of those pages of its program that only the start needed
	// (supervise.ReturnFilePages). docs/adr/0011 tells what the saving is worth.
	ReturnStartupPages bool

	// Progress is told of the steps of Start and Stop.
	Progress Progress
	// OnProcess is told when a process starts, dies, is restarted or given up.
	OnProcess func(supervise.Event)
	// OnCertificate is told when a certificate was renewed, or could not be.
	OnCertificate func(CertificateEvent)
	// Policy of restarts; it defaults to supervise.DefaultPolicy, and to none
	// with the ephemeral profile.
	Policy *supervise.Policy
	// Clock is the real one unless a test brings its own.
	Clock clock.WithTicker
}

// Tuning is the garbage collector's target for each process, as the
// environment variable GOGC has it. Empty fields mean DefaultTuning's.
type Tuning struct {
	EtcdGOGC, APIServerGOGC, ControllerManagerGOGC string
}

// DefaultTuning trades a little CPU for memory; docs/adr/0011 has the numbers.
var DefaultTuning = Tuning{EtcdGOGC: "50", APIServerGOGC: "70", ControllerManagerGOGC: "25"}

// ephemeralTuning gives memory for time, which tests have less of: at Go's own 100, collections are half of what kube-apiserver does for
// the controller oracle. It grows to 2 GB there, instead of 1.
var ephemeralTuning = Tuning{EtcdGOGC: "100", APIServerGOGC: "300", ControllerManagerGOGC: "100"}

// complete fills in the defaults and checks what the user gave.
func (o Options) complete() (Options, error) {
	setDefault(&o.Profile, Durable)
	setDefault(&o.BindAddress, "127.0.0.1")
	setDefault(&o.APIPort, DefaultAPIPort)
	setDefault(&o.PortFlag, "--api-port")
	setDefault(&o.ServiceCIDR, "10.96.0.0/16")
	setDefault(&o.Issuer, "https://kubernetes.default.svc.cluster.local")
	tuning := DefaultTuning
	if o.Profile == Ephemeral {
		tuning = ephemeralTuning
	}
	setDefault(&o.Tuning.EtcdGOGC, tuning.EtcdGOGC)
	setDefault(&o.Tuning.APIServerGOGC, tuning.APIServerGOGC)
	setDefault(&o.Tuning.ControllerManagerGOGC, tuning.ControllerManagerGOGC)
	setDefault(&o.Assets, os.Getenv("KUBEBUILDER_ASSETS"))
	if o.Progress == nil {
		o.Progress = func(string) func(error) { return func(error) {} }
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Policy == nil {
		policy := supervise.DefaultPolicy
		if o.Profile == Ephemeral {
			policy = supervise.Never
		}
		o.Policy = &policy
	}
	if o.Profile == Durable {
		if o.DataDir == "" {
			return o, errors.New("the durable control plane needs a data folder: give one with --data-dir")
		}
		var err error
		if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
			return o, fmt.Errorf("finding the data folder: %w", err)
		}
	}
	return o, o.validate()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o Options) validate() error {
	if net.ParseIP(o.BindAddress) == nil {
		return fmt.Errorf("the API server's address %q is no IP address: give one such as 127.0.0.1 or 0.0.0.0", o.BindAddress)
	}
	if o.APIPort < 1 || o.APIPort > 65535 {
		return fmt.Errorf("the API server's port %d is not between 1 and 65535: choose another with %s", o.APIPort, o.PortFlag)
	}
	if _, _, err := net.ParseCIDR(o.ServiceCIDR); err != nil {
		return fmt.Errorf("the service range %q is no network: give one such as 10.96.0.0/16", o.ServiceCIDR)
	}
	if o.AuditPolicyFile != "" {
		if _, err := os.Stat(o.AuditPolicyFile); err != nil {
			return fmt.Errorf("reading the audit policy: %w", err)
		}
	}
	return o.findAssets()
}

// findAssets names everything that is missing at once.
func (o Options) findAssets() error {
	if o.Assets == "" {
		return errors.New("where etcd and kube-apiserver lie is not known: build them with `make assets`, or set KUBEBUILDER_ASSETS to their folder")
	}
	needed := []string{Etcd, APIServer}
	if o.Profile == Durable && !o.NoControllerManager {
		needed = append(needed, ControllerManager)
	}
	var missing []string
	for _, name := range needed {
		if info, err := os.Stat(filepath.Join(o.Assets, name)); err != nil || info.IsDir() {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s has no %s: build the missing programs with `make assets`, or set KUBEBUILDER_ASSETS to a folder that has them",
			o.Assets, strings.Join(missing, ", "))
	}
	return nil
}

// clientHost is where clients on this machine reach kube-apiserver.
func (o Options) clientHost() string {
	host := o.BindAddress
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(o.APIPort))
}
