// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// needRoot skips, loudly, where the kernel can't be used; on a CI machine with root that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: real packet rules need root")
	}
	for _, program := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is missing: install iproute2, nftables and util-linux", program)
			}
			t.Skipf("SKIPPED: %s is missing", program)
		}
	}
}

// world is a node in a network namespace of its own, with pods on a bridge and a client outside.
type world struct {
	t    *testing.T
	name string
	node string // path of the node's namespace
}

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, name: fmt.Sprintf("pntest%d", os.Getpid()%100000)}
	w.node = podnetwork.NetnsPath(w.name)
	w.netns(w.name)
	ip := "ip -n " + w.name + " "
	for _, line := range []string{
		ip + "link add br0 type bridge", ip + "addr add 10.244.1.1/24 dev br0", ip + "link set br0 up",
		"nsenter --net=" + w.node + " sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1",
	} {
		run(t, line)
	}
	w.host("outside", "172.31.250.2/24", "172.31.250.1", "172.31.250.1/24")
	run(t, ip+"route add default via 172.31.250.2") // As on any machine: without a route nothing is sent to a service.
	return w
}

func (w *world) netns(name string) {
	w.t.Helper()
	run(w.t, "ip netns add "+name)
	w.t.Cleanup(func() { run(w.t, "ip netns delete "+name) })
	run(w.t, "ip -n "+name+" link set lo up")
}

// host adds a namespace with an address, plugged into the node: into the bridge, or, with a node address, beside it.
func (w *world) host(name, address, gateway, nodeAddress string) {
	w.t.Helper()
	ns := w.name + "-" + name
	w.netns(ns)
	end := "v-" + name
	run(w.t, "ip -n "+w.name+" link add "+end+" type veth peer name eth0 netns "+ns)
	if nodeAddress == "" {
		run(w.t, "ip -n "+w.name+" link set "+end+" master br0")
		run(w.t, "ip -n "+w.name+" link set "+end+" type bridge_slave hairpin on")
	} else {
		run(w.t, "ip -n "+w.name+" addr add "+nodeAddress+" dev "+end)
	}
	run(w.t, "ip -n "+w.name+" link set "+end+" up")
	run(w.t, "ip -n "+ns+" addr add "+address+" dev eth0")
	run(w.t, "ip -n "+ns+" link set eth0 up")
	run(w.t, "ip -n "+ns+" route add default via "+gateway)
}

// pod adds a pod that answers on TCP port 8080 with its name and the client's address as it sees it.
func (w *world) pod(name, address string) {
	w.t.Helper()
	w.host(name, address+"/24", "10.244.1.1", "")
	var listener net.Listener
	err := podnetwork.InNetns(podnetwork.NetnsPath(w.name+"-"+name), func() (err error) {
		listener, err = net.Listen("tcp4", ":8080")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			from, _, _ := net.SplitHostPort(connection.RemoteAddr().String())
			fmt.Fprintf(connection, "%s %s", name, from)
			_ = connection.Close()
		}
	}()
}

// ask connects from a namespace and returns what is answered.
func (w *world) ask(from, to string) (string, error) {
	path := podnetwork.NetnsPath(w.name + "-" + from)
	if from == "" {
		path = w.node
	}
	var answer string
	err := podnetwork.InNetns(path, func() error {
		connection, err := net.DialTimeout("tcp4", to, 3*time.Second)
		if err != nil {
			return err
		}
		defer func() { _ = connection.Close() }()
		_ = connection.SetDeadline(time.Now().Add(3 * time.Second))
		data, err := io.ReadAll(connection)
		answer = string(data)
		return err
	})
	return answer, err
}

func service(name, ip string, change ...func(*pcorev1.Service)) *pcorev1.Service {
	s := &pcorev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	s.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func slice(node string, ips ...string) []*pdiscoveryv1.EndpointSlice {
	protocol := corev1.ProtocolTCP
	s := &pdiscoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: &protocol}},
	}
	for _, ip := range ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}})
	}
	return []*pdiscoveryv1.EndpointSlice{s}
}

func testConfig() ruleset.Config {
	return ruleset.Config{
		Family: ruleset.IPv4, NodeName: "node",
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.97.0.0/16")},
	}
}

// TestRealTraffic asks services in a made network, so that what the rules mean to the kernel is what is tested.
func TestRealTraffic(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.pod("a", "10.244.1.11")
	w.pod("b", "10.244.1.12")
	ctx := context.Background()
	config := testConfig()

	// The node's own rules are made in its namespace, so nft must run there.
	nsenter := func(f func() error) {
		t.Helper()
		if err := podnetwork.InNetns(w.node, f); err != nil {
			t.Fatal(err)
		}
	}
	var plane *Dataplane
	nsenter(func() (err error) {
		plane, err = New(DefaultTable, config)
		return err
	})
	update := func(fragments map[string]ruleset.Fragment) {
		t.Helper()
		nsenter(func() error { return plane.Update(ctx, fragments) })
	}
	ask := func(t *testing.T, from, to string) string {
		t.Helper()
		answer, err := w.ask(from, to)
		if err != nil {
			out, _ := exec.Command("nsenter", "--net="+w.node, "nft", "list", "table", "ip", "pinnace").CombinedOutput()
			t.Fatalf("asking %s from %q: %v\n%s", to, from, err, out)
		}
		return answer
	}
	const vip = "10.97.0.10:80"
	update(map[string]ruleset.Fragment{"service web": config.Service(service("web", "10.97.0.10"), slice("node", "10.244.1.11", "10.244.1.12"))})

	t.Run("every endpoint answers a pod, which keeps its address", func(t *testing.T) {
		seen := map[string]bool{}
		for range 60 {
			seen[ask(t, "a", vip)] = true
		}
		// A pod that is sent to itself comes from the bridge: otherwise the answer would never leave it.
		if !seen["b 10.244.1.11"] || !seen["a 10.244.1.1"] || len(seen) != 2 {
			t.Errorf("answers: %v", seen)
		}
	})
	t.Run("from outside and from the node itself", func(t *testing.T) {
		for _, from := range []string{"outside", ""} {
			if answer := ask(t, from, vip); !strings.HasSuffix(answer, " 10.244.1.1") {
				t.Errorf("from %q: %q should have come from the node", from, answer)
			}
		}
	})
	t.Run("pods reach the outside behind the node's address", func(t *testing.T) {
		var listener net.Listener
		if err := podnetwork.InNetns(podnetwork.NetnsPath(w.name+"-outside"), func() (err error) {
			listener, err = net.Listen("tcp4", ":9000")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		from := make(chan string, 1)
		go func() {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			from <- connection.RemoteAddr().String()
			_ = connection.Close()
		}()
		ask(t, "a", "172.31.250.2:9000")
		if address := <-from; !strings.HasPrefix(address, "172.31.250.1:") {
			t.Errorf("the outside sees %s", address)
		}
	})
	t.Run("a change of endpoints", func(t *testing.T) {
		update(map[string]ruleset.Fragment{"service web": config.Service(service("web", "10.97.0.10"), slice("node", "10.244.1.12"))})
		for range 20 {
			if answer := ask(t, "outside", vip); !strings.HasPrefix(answer, "b ") {
				t.Fatalf("the endpoint that is gone answered: %q", answer)
			}
		}
	})
	t.Run("no endpoints, unknown ports and unknown services are refused at once", func(t *testing.T) {
		update(map[string]ruleset.Fragment{"service web": config.Service(service("web", "10.97.0.10"), nil)})
		for _, to := range []string{vip, "10.97.0.10:81", "10.97.77.77:80"} {
			for _, from := range []string{"a", "outside", ""} {
				start := time.Now()
				_, err := w.ask(from, to)
				if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(start) > 2*time.Second {
					t.Errorf("%s from %q: %v after %s", to, from, err, time.Since(start))
				}
			}
		}
	})
	t.Run("node port and host port", func(t *testing.T) {
		nodePort := service("web", "10.97.0.10", func(s *pcorev1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
		})
		pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}}
		pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 8888}}}}
		pod.Status.PodIP = "10.244.1.12"
		update(map[string]ruleset.Fragment{
			"service web": config.Service(nodePort, slice("node", "10.244.1.11")),
			"pod b":       config.HostPorts(pod),
		})
		if answer := ask(t, "outside", "172.31.250.1:30080"); answer != "a 10.244.1.1" {
			t.Errorf("node port: %q", answer)
		}
		if answer := ask(t, "outside", "172.31.250.1:8888"); answer != "b 172.31.250.2" {
			t.Errorf("host port: %q", answer)
		}
		if answer := ask(t, "b", "172.31.250.1:8888"); answer != "b 10.244.1.1" {
			t.Errorf("host port from the pod itself: %q", answer)
		}
	})
	t.Run("session affinity", func(t *testing.T) {
		sticky := service("web", "10.97.0.10", func(s *pcorev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
		update(map[string]ruleset.Fragment{"service web": config.Service(sticky, slice("node", "10.244.1.11", "10.244.1.12"))})
		first := ask(t, "outside", vip)
		for range 20 {
			if answer := ask(t, "outside", vip); answer != first {
				t.Fatalf("one client was sent to %q and to %q", first, answer)
			}
		}
	})
	t.Run("a flushed table comes back", func(t *testing.T) {
		run(t, "nsenter --net="+w.node+" nft flush ruleset")
		nsenter(func() error {
			repaired, err := plane.Check(ctx)
			if err == nil && !repaired {
				t.Error("Check didn't notice that the table was gone")
			}
			return err
		})
		ask(t, "outside", vip)
		nsenter(func() error {
			repaired, err := plane.Check(ctx)
			if err == nil && repaired {
				t.Error("Check wrote a table anew that was in order")
			}
			return err
		})
	})
	t.Run("removed", func(t *testing.T) {
		nsenter(func() error { return plane.Remove(ctx) })
		out, err := exec.Command("nsenter", "--net="+w.node, "nft", "list", "tables").CombinedOutput()
		if err != nil || len(out) != 0 {
			t.Errorf("left over: %s %v", out, err)
		}
	})
}
