// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/controllers/agent/node"
	networkdataplane "github.com/pinnace-dev/pinnace/controllers/network/dataplane"
	"github.com/pinnace-dev/pinnace/controllers/network/routes"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/dataplane"
	"github.com/pinnace-dev/pinnace/internal/image"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
	"github.com/pinnace-dev/pinnace/internal/runtime/cri"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
	"github.com/pinnace-dev/pinnace/internal/version"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// AgentOptions say how an agent runs.
type AgentOptions struct {
	// Kubeconfig is a file; empty means $KUBECONFIG.
	Kubeconfig string
	// NodeName is the Node object's name.
	NodeName string
	// NodeIP is the node's address; empty means the one of the default route.
	NodeIP string
	// DataDir holds volumes and logs.
	DataDir string
	// RuntimeEndpoint is the container runtime's socket.
	RuntimeEndpoint string
	// CNIConfDir is where the pod network's configuration goes; empty leaves the network to others.
	CNIConfDir string
	// ClusterCIDR is the network of all pods, ServiceCIDR that of Pinnace's services.
	ClusterCIDR, ServiceCIDR string
	// PacketTable is the nftables table of services and host ports. It is this agent's alone: it is replaced whole.
	PacketTable string
	// CgroupRoot is the parent of the pods' cgroups. It is this agent's alone: what runs below it and is of no pod of this node is killed.
	CgroupRoot string
	// Simulate plays that many nodes without a runtime; 0 is one real node.
	Simulate int
	// Server says how the agent's server answers.
	Server AgentServerOptions
	// Keep says what is kept on the node and what is thrown away.
	Keep AgentKeepOptions
	// Resources says what of the machine pods may have, and when they have to go.
	Resources AgentResourceOptions
	// Down says what becomes of the pods when the agent is told to end.
	Down AgentDownOptions
	// SyncFrequency is how often mounted ConfigMaps, Secrets and tokens are brought up to date, at least 1 s.
	SyncFrequency time.Duration
	// UnsafeSysctls are allowed to pods beside the safe ones; a name may end in "*".
	UnsafeSysctls []string
	// StaticPodDir holds manifests of pods that run here without an API server; empty: none.
	StaticPodDir string
	Log          LogOptions
}

// NewAgentOptions returns the defaults.
func NewAgentOptions() AgentOptions {
	name, err := os.Hostname()
	if err != nil {
		name = "" // RunAgent asks for --node-name then.
	}
	return AgentOptions{
		NodeName:        strings.ToLower(name),
		DataDir:         "/var/lib/pinnace-agent",
		RuntimeEndpoint: "unix:///run/containerd/containerd.sock",
		ClusterCIDR:     "10.244.0.0/16",
		ServiceCIDR:     "10.97.0.0/16",
		PacketTable:     dataplane.DefaultTable,
		CgroupRoot:      cgroup.Pods,
		SyncFrequency:   time.Minute,
		Keep:            newAgentKeepOptions(),
		Resources:       newAgentResourceOptions(),
	}
}

// RunAgent runs one real node, or many simulated ones, until the context ends.
func RunAgent(ctx context.Context, o AgentOptions) error {
	if o.NodeName == "" {
		return errors.New("the node has no name: give one with --node-name")
	}
	if o.Simulate < 0 {
		return fmt.Errorf("--simulate %d is no number of nodes: give 0 for a real one", o.Simulate)
	}
	if o.SyncFrequency < time.Second {
		return fmt.Errorf("--sync-frequency %s is too short: give at least 1s", o.SyncFrequency)
	}
	if err := o.Down.check(); err != nil {
		return err
	}
	logger, err := o.Log.install()
	if err != nil {
		return err
	}
	config, err := restConfig(o.Kubeconfig)
	if err != nil {
		return err
	}
	options := managerOptions()
	if o.Simulate == 0 {
		// A real node sees the pods that are its own; the server filters.
		options.Cache.ByObject = map[client.Object]cache.ByObject{
			&pcorev1.Pod{}: {Field: fields.OneTermEqualSelector("spec.nodeName", o.NodeName)},
		}
	}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return fmt.Errorf("making the agent: %w", err)
	}
	pods := agent.NewReconciler(mgr.GetClient(), agent.Options{
		Services:   services(mgr.GetClient(), o.Simulate),
		References: mgr.GetAPIReader(),
		Tokens:     tokens(mgr.GetClient()),
		Events:     mgr.GetEventRecorder("pinnace-agent"),
		Refresh:    o.SyncFrequency,
	})
	nodes := node.NewReconciler(mgr.GetClient(), mgr.GetAPIReader(), node.Options{LookEvery: o.Resources.LookEvery})
	if o.Simulate > 0 {
		err = addSimulatedNodes(o, pods, nodes)
	} else {
		err = addRealNode(mgr, o, pods, nodes)
	}
	if err != nil {
		return err
	}
	if err := setUp(mgr, nodes, pods); err != nil {
		return err
	}
	if err := returnStartupMemory(mgr); err != nil {
		return err
	}
	logger.Info("Starting the agent", "node", o.NodeName, "host", config.Host)
	return runUntilDown(ctx, mgr, o.Down, pods, nodes)
}

// addRealNode wires a node that runs containers.
func addRealNode(mgr ctrl.Manager, o AgentOptions, pods *agent.Reconciler, nodes *node.Reconciler) error {
	runtime, err := cri.Dial(o.RuntimeEndpoint)
	if err != nil {
		return err
	}
	address, err := nodeAddress(o.NodeIP)
	if err != nil {
		return err
	}
	volumes, err := volume.New(o.DataDir)
	if err != nil {
		return err
	}
	capacity, info, err := node.Machine(o.DataDir, version.Version)
	if err != nil {
		return err
	}
	resources, err := o.Resources.resolve(capacity)
	if err != nil {
		return err
	}
	if err := resources.enforce(o.CgroupRoot); err != nil {
		return err
	}
	// What the kernel lacks is an operator's to know; pods without it work, but for what the problem names.
	for _, problem := range podnetwork.PrepareHost(address.Is6()) {
		mgr.GetLogger().Info("The network of this machine lacks something", "problem", problem.Error())
	}
	if err := addNodeNetwork(mgr, o); err != nil {
		return err
	}
	server, err := addNodeServer(mgr, o, address, runtime)
	if err != nil {
		return err
	}
	logDir := filepath.Join(o.DataDir, "log")
	keeper, err := addKeeper(mgr, o, pods, runtime, volumes, logDir)
	if err != nil {
		return err
	}
	err = nodes.AddNode(node.Node{
		Name:        o.NodeName,
		Images:      keeper.Images,
		Annotations: server.annotations,
		ServerPort:  server.port,
		Addresses:   nodeAddresses(o.NodeName, address),
		Capacity:    capacity,
		Reserved:    resources.reserved,
		Info:        info,
		Runtime:     runtime,
		Pressure:    pressure(pods, o.NodeName),
		OnPodCIDRs:  writeNetwork(o),
	})
	if err != nil {
		return err
	}
	profile, err := writeSandboxProfile(o.DataDir)
	if err != nil {
		return err
	}
	n := agent.Node{
		Name:           o.NodeName,
		Runtime:        runtime,
		HostIPs:        []string{address.String()},
		Allocatable:    resources.allocatable(),
		Capacity:       capacity,
		ClusterDNS:     resources.dns,
		ClusterDomain:  o.Resources.ClusterDomain,
		Volumes:        volumes,
		UnsafeSysctls:  o.UnsafeSysctls,
		StaticPodDir:   o.StaticPodDir,
		LogDir:         logDir,
		CgroupRoot:     o.CgroupRoot,
		SandboxProfile: profile,
		Parallel:       parallelStarts(),
		DeathLines:     o.Keep.deathLines(),
		PullProgress:   PullProgress(runtime),
		Refuses:        image.Refuses,
	}
	layout := n
	n.Eviction = resources.eviction(o, &layout, runtime, func(ctx context.Context) error {
		_, err := keeper.RemoveUnusedImages(ctx)
		return err
	})
	return pods.AddNode(n)
}

// simulatedCapacity is what each simulated node pretends to have.
var simulatedCapacity = corev1.ResourceList{
	corev1.ResourceCPU:              resource.MustParse("32"),
	corev1.ResourceMemory:           resource.MustParse("256Gi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	corev1.ResourcePods:             resource.MustParse("110"),
}

// addSimulatedNodes wires nodes on the fake runtime: NAME-1, NAME-2 and so on.
func addSimulatedNodes(o AgentOptions, pods *agent.Reconciler, nodes *node.Reconciler) error {
	for i := range o.Simulate {
		name := fmt.Sprintf("%s-%d", o.NodeName, i+1)
		runtime := fake.New(fake.Options{})
		address := simulatedAddress(i)
		err := nodes.AddNode(node.Node{
			Name:      name,
			Addresses: nodeAddresses(name, address),
			Capacity:  simulatedCapacity,
			Info:      corev1.NodeSystemInfo{KubeletVersion: version.Version, OperatingSystem: "linux", Architecture: goruntime.GOARCH, OSImage: "simulated"},
			Runtime:   runtime,
			OnPodCIDRs: func(_ context.Context, cidrs []string) error {
				prefix, err := netip.ParsePrefix(cidrs[0])
				if err != nil {
					return fmt.Errorf("reading the pod network of %s: %w", name, err)
				}
				runtime.SetPodCIDR(prefix)
				return nil
			},
		})
		if err != nil {
			return err
		}
		err = pods.AddNode(agent.Node{
			Name: name, Runtime: runtime, HostIPs: []string{address.String()}, Allocatable: simulatedCapacity, Simulated: true,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// simulatedAddress is the address that a simulated node pretends to have, out of 198.18.0.0/15, which is set aside for benchmarks (RFC 2544)
// and has room for 131,072 of them.
func simulatedAddress(i int) netip.Addr {
	n := uint32(198)<<24 | uint32(18)<<16 + uint32(i+1)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func nodeAddresses(name string, address netip.Addr) []corev1.NodeAddress {
	return []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: address.String()},
		{Type: corev1.NodeHostName, Address: name},
	}
}

// writeNetwork writes the pod network's configuration once the node's networks are known; nil leaves it to others.
func writeNetwork(o AgentOptions) func(context.Context, []string) error {
	if o.CNIConfDir == "" {
		return nil
	}
	return func(_ context.Context, podCIDRs []string) error {
		network := podnetwork.Network{PodCIDRs: podCIDRs, MTU: podnetwork.DetectMTU(), LeaseDir: filepath.Join(o.DataDir, "addresses")}
		_, err := network.WriteConf(o.CNIConfDir)
		return err
	}
}

// addNodeNetwork wires the addresses of services, and the routes to other nodes' pods unless others see to them.
func addNodeNetwork(mgr ctrl.Manager, o AgentOptions) error {
	pods, err := netip.ParsePrefix(o.ClusterCIDR)
	if err != nil {
		return fmt.Errorf("--cluster-cidr %q is no network: give one such as 10.244.0.0/16", o.ClusterCIDR)
	}
	services, err := netip.ParsePrefix(o.ServiceCIDR)
	if err != nil {
		return fmt.Errorf("--service-cidr %q is no network: give one such as 10.97.0.0/16", o.ServiceCIDR)
	}
	table, err := dataplane.New(o.PacketTable, ruleset.Config{
		Family: ruleset.IPv4, NodeName: o.NodeName,
		ClusterCIDRs: []netip.Prefix{pods}, ServiceCIDRs: []netip.Prefix{services},
	})
	if err != nil {
		return err
	}
	if err := setUp(mgr, networkdataplane.NewReconciler(mgr.GetClient(), o.NodeName, table)); err != nil {
		return err
	}
	if o.CNIConfDir == "" {
		return nil
	}
	return setUp(mgr, routes.NewReconciler(mgr.GetClient(), routes.Options{Node: o.NodeName}))
}

func nodeAddress(text string) (netip.Addr, error) {
	if text == "" {
		address, err := podnetwork.NodeAddress()
		if err != nil {
			return netip.Addr{}, fmt.Errorf("finding this machine's address; give it with --node-ip: %w", err)
		}
		return address, nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("--node-ip %q is no address: give one such as 192.0.2.7", text)
	}
	return address, nil
}

// parallelStarts is how many sandboxes and containers start at once. On two cores four is best: each start waits
// for the kernel about half of its time.
func parallelStarts() int { return max(4, 2*goruntime.NumCPU()) }

// services lists services from the cache that the dataplane has anyway. What is simulated has no environment.
func services(c client.Client, simulated int) func(context.Context, string) ([]pcorev1.Service, error) {
	if simulated > 0 {
		return nil
	}
	return func(ctx context.Context, namespace string) ([]pcorev1.Service, error) {
		var list pcorev1.ServiceList
		err := c.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy)
		return list.Items, err
	}
}

// tokens asks the API server for service account tokens that die with their pod's use of them.
func tokens(c client.Client) agent.TokenFunc {
	return func(ctx context.Context, pod *pcorev1.Pod, serviceAccount, audience string, lives time.Duration) ([]byte, time.Time, error) {
		seconds := int64(lives.Seconds())
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
		if audience != "" {
			request.Spec.Audiences = []string{audience}
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: serviceAccount}}
		if err := c.SubResource("token").Create(ctx, account, request); err != nil {
			return nil, time.Time{}, fmt.Errorf("requesting a token of the service account %s: %w", serviceAccount, err)
		}
		return []byte(request.Status.Token), request.Status.ExpirationTimestamp.Time, nil
	}
}
