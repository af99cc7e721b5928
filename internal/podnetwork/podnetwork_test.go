// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRender(t *testing.T) {
	data, err := Network{PodCIDRs: []string{"10.244.3.7/24", "fd00:244:3::/64"}, MTU: 1400, LeaseDir: "/run/x"}.Render()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"cniVersion": "1.0.0", "name": "pinnace",
		"plugins": []any{map[string]any{
			"type": "bridge", "bridge": "pinnace0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1400.0,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": "/run/x",
				"ranges": []any{[]any{map[string]any{"subnet": "10.244.3.0/24"}}, []any{map[string]any{"subnet": "fd00:244:3::/64"}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}, map[string]any{"dst": "::/0"}},
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, n := range map[string]Network{
		"no range":        {},
		"no network":      {PodCIDRs: []string{"10.244.3.0"}},
		"too long a name": {PodCIDRs: []string{"10.244.3.0/24"}, Bridge: "a-very-long-name"},
	} {
		if _, err := n.Render(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWriteConf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	n := Network{PodCIDRs: []string{"10.244.3.0/24"}, LeaseDir: filepath.Join(t.TempDir(), "leases")}
	var changes []bool
	for _, cidr := range []string{"10.244.3.0/24", "10.244.3.0/24", "10.244.4.0/24"} {
		n.PodCIDRs = []string{cidr}
		changed, err := n.WriteConf(dir)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, changed)
	}
	if diff := cmp.Diff([]bool{true, false, true}, changes); diff != "" {
		t.Error(diff)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != confName {
		t.Errorf("%v %v", entries, err)
	}
}

func TestPrepareHost(t *testing.T) {
	root := t.TempDir()
	write := func(name, value string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("net/ipv4/ip_forward", "0\n")
	var loaded []string
	load := func(module string) error {
		loaded = append(loaded, module)
		return errors.New("no such module")
	}
	problems := prepareHost(root, false, load)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "modprobe br_netfilter") {
		t.Errorf("without br_netfilter: %v", problems)
	}
	if data, err := os.ReadFile(filepath.Join(root, "net/ipv4/ip_forward")); err != nil || string(data) != "1" {
		t.Errorf("forwarding is %q, %v", data, err)
	}
	if diff := cmp.Diff([]string{"br_netfilter"}, loaded); diff != "" {
		t.Error(diff)
	}
	problems = prepareHost(root, false, func(string) error {
		write("net/bridge/bridge-nf-call-iptables", "0\n")
		return nil
	})
	if len(problems) != 0 {
		t.Errorf("with br_netfilter: %v", problems)
	}
}

func TestSegmentAddresses(t *testing.T) {
	s := Segment{Bridge: "b", Network: netip.MustParsePrefix("172.30.0.0/28")}
	if s.HostAddress().String() != "172.30.0.1" {
		t.Errorf("host: %s", s.HostAddress())
	}
	seen := map[netip.Addr]bool{s.HostAddress(): true}
	for i := 1; i <= 5; i++ {
		addr, err := s.NodeAddress(i)
		if err != nil || seen[addr] || !s.Network.Contains(addr) {
			t.Errorf("node %d: %s, %v", i, addr, err)
		}
		seen[addr] = true
	}
	for _, number := range []int{0, 6, 100} {
		if addr, err := s.NodeAddress(number); err == nil {
			t.Errorf("node %d got %s", number, addr)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: network namespaces need root")
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

func output(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", words, err, out)
	}
	return string(out)
}

// TestTwoNodesOnOneMachine makes two nodes' namespaces on a segment, twice, as two starts would, and talks between them,
// to pods' networks behind them, and from the host.
func TestTwoNodesOnOneMachine(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	name := fmt.Sprintf("pnt%d", os.Getpid()%100000)
	segment, err := ChooseSegment(name, DefaultSegmentNetworks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveSegment(ctx, segment); err != nil {
			t.Error(err)
		}
	})
	var nodes []Node
	for i := 1; i <= 2; i++ {
		address, err := segment.NodeAddress(i)
		if err != nil {
			t.Fatal(err)
		}
		node := Node{Netns: fmt.Sprintf("%s-node-%d", name, i), Address: address, Segment: segment}
		t.Cleanup(func() {
			if err := RemoveNodeNetns(node); err != nil {
				t.Error(err)
			}
		})
		nodes = append(nodes, node)
	}
	for range 2 {
		if err := EnsureSegment(ctx, segment); err != nil {
			t.Fatal(err)
		}
		for _, node := range nodes {
			path, err := EnsureNodeNetns(node)
			if err != nil {
				t.Fatal(err)
			}
			if path != NetnsPath(node.Netns) {
				t.Errorf("namespace %s", path)
			}
		}
	}
	if again, err := ChooseSegment(name, nil); err != nil || again != segment {
		t.Errorf("the segment that is there: %+v, %v", again, err)
	}
	if other, err := ChooseSegment(name+"x", []string{segment.Network.String(), "10.213.250.0/24"}); err != nil || other.Network.String() != "10.213.250.0/24" {
		t.Errorf("a network that is taken: %+v, %v", other, err)
	}

	// A program that is started in the namespace sees the machine's cgroups and its own network.
	program, args, err := EnterCommand(NetnsPath(nodes[0].Netns), "ip", "-4", "-o", "addr", "show", "dev", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if out := output(t, append([]string{program}, args...)...); !strings.Contains(out, nodes[0].Address.String()) {
		t.Errorf("its address: %s", out)
	}

	// Each node has a pod's address on its loopback interface.
	pods := []string{"10.213.101.5", "10.213.102.5"}
	for i, node := range nodes {
		output(t, "ip", "-n", node.Netns, "addr", "add", pods[i]+"/32", "dev", "lo")
		if problems := inNode(t, node, func() error { return errors.Join(asErrors(PrepareHost(false))...) }); problems != nil {
			t.Logf("the kernel of this machine: %v", problems)
		}
	}
	route := func(i int) Route {
		return Route{Destination: netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/24", 101+i)), Gateway: nodes[i].Address}
	}
	for i, node := range nodes {
		for range 2 {
			if err := inNode(t, node, func() error { return EnsureRoutes([]Route{route(1 - i)}) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	var listener net.Listener
	if err := inNode(t, nodes[1], func() (err error) {
		listener, err = net.Listen("tcp4", pods[1]+":0")
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
		from <- connection.RemoteAddr().(*net.TCPAddr).IP.String()
		_ = connection.Close()
	}()
	if err := inNode(t, nodes[0], func() error {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(pods[0])}}
		connection, err := dialer.Dial("tcp4", listener.Addr().String())
		if err == nil {
			_ = connection.Close()
		}
		return err
	}); err != nil {
		t.Fatalf("from pod to pod: %v", err)
	}
	if address := <-from; address != pods[0] {
		t.Errorf("the pod's address arrived as %s", address)
	}

	t.Run("routes follow, strangers' stay", func(t *testing.T) {
		ns := nodes[0].Netns
		output(t, "ip", "-n", ns, "route", "add", "10.213.200.0/24", "via", nodes[1].Address.String())
		moved := Route{Destination: netip.MustParsePrefix("10.213.102.0/24"), Gateway: segment.HostAddress()}
		unreachable := Route{Destination: netip.MustParsePrefix("10.213.103.0/24"), Gateway: netip.MustParseAddr("192.0.2.200")}
		// With a default route even a gateway that is elsewhere counts as no neighbour: the kernel refuses it.
		err := inNode(t, nodes[0], func() error { return EnsureRoutes([]Route{unreachable, moved}) })
		var missing *UnreachableError
		if !errors.As(err, &missing) || missing.Route != unreachable {
			t.Errorf("an unreachable node: %v", err)
		}
		want := []string{"10.213.102.0/24 via " + segment.HostAddress().String(), "10.213.200.0/24 via " + nodes[1].Address.String()}
		if diff := cmp.Diff(want, testRoutes(t, ns)); diff != "" {
			t.Error(diff)
		}
		if err := inNode(t, nodes[0], func() error { return EnsureRoutes(nil) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[1:], testRoutes(t, ns)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a machine's routes are not an agent's, nor another cluster's", func(t *testing.T) {
		ns := nodes[0].Netns
		cluster := func(i int) (network netip.Prefix, node Route) {
			return netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/23", 110+2*i)),
				Route{Destination: netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/24", 110+2*i)), Gateway: segment.HostAddress()}
		}
		var both []string
		for i := range 2 {
			network, node := cluster(i)
			if err := inNode(t, nodes[0], func() error { return EnsureMachineRoutes([]netip.Prefix{network}, []Route{node}) }); err != nil {
				t.Fatal(err)
			}
			both = append(both, node.String())
		}
		strangers := []string{"10.213.200.0/24 via " + nodes[1].Address.String()}
		if err := inNode(t, nodes[0], func() error { return EnsureRoutes(nil) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append(both, strangers...), testRoutes(t, ns)); diff != "" {
			t.Errorf("after an agent without routes: %s", diff)
		}
		network, _ := cluster(0)
		if err := inNode(t, nodes[0], func() error { return EnsureMachineRoutes([]netip.Prefix{network}, nil) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append(both[1:], strangers...), testRoutes(t, ns)); diff != "" {
			t.Errorf("after the end of the first cluster: %s", diff)
		}
	})
	t.Run("the namespace's own address and width", func(t *testing.T) {
		if err := inNode(t, nodes[0], func() error {
			address, err := NodeAddress()
			if err == nil && address != nodes[0].Address {
				t.Errorf("the node's address is %s", address)
			}
			if mtu := DetectMTU(); mtu < 1280 {
				t.Errorf("the MTU is %d", mtu)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("removed, twice", func(t *testing.T) {
		for range 2 {
			for _, node := range nodes {
				if err := RemoveNodeNetns(node); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(NetnsPath(node.Netns)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is still there", node.Netns)
				}
			}
			if err := RemoveSegment(ctx, segment); err != nil {
				t.Error(err)
			}
		}
		if _, err := net.InterfaceByName(name); err == nil {
			t.Error("the bridge is still there")
		}
	})
}

func testRoutes(t *testing.T, netns string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(output(t, "ip", "-n", netns, "route", "show")) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "10.213.") && len(fields) > 2 {
			out = append(out, strings.Join(fields[:3], " "))
		}
	}
	return out
}

func inNode(t *testing.T, n Node, f func() error) error {
	t.Helper()
	return InNetns(NetnsPath(n.Netns), f)
}

func asErrors(problems []Problem) []error {
	var out []error
	for _, p := range problems {
		out = append(out, p)
	}
	return out
}
