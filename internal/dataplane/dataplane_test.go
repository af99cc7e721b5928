// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/knftables"

	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// counting counts transactions, and fails the next one on demand.
type counting struct {
	*knftables.Fake
	transactions, operations int
	fail                     error
}

func (c *counting) Run(ctx context.Context, tx *knftables.Transaction) error {
	if err := c.fail; err != nil {
		c.fail = nil
		return err
	}
	c.transactions++
	c.operations += tx.NumOperations()
	return c.Fake.Run(ctx, tx)
}

func newPlane(fake *counting) *Dataplane {
	d := NewWith(testConfig(), fake)
	d.forget = func([]ruleset.Flow) error { return nil }
	return d
}

func newFake() *counting {
	return &counting{Fake: knftables.NewFake(knftables.IPv4Family, DefaultTable)}
}

// dumpOf is the table that a dataplane makes which is given everything at once.
func dumpOf(t testing.TB, fragments map[string]ruleset.Fragment) string {
	t.Helper()
	fake := newFake()
	if err := newPlane(fake).Update(context.Background(), fragments); err != nil {
		t.Fatal(err)
	}
	return sorted(fake.Dump())
}

// sorted puts a dump's elements in one order, which means nothing to the kernel; that of rules does.
func sorted(dump string) string {
	lines := strings.Split(dump, "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		if strings.HasPrefix(a, "add element") && strings.HasPrefix(b, "add element") {
			return strings.Compare(a, b)
		}
		return strings.Compare(strings.Join(strings.Fields(a)[:min(2, len(strings.Fields(a)))], " "), strings.Join(strings.Fields(b)[:min(2, len(strings.Fields(b)))], " "))
	})
	return strings.Join(lines, "\n")
}

func TestUpdateWritesTheDifference(t *testing.T) {
	ctx := context.Background()
	fake := newFake()
	d := newPlane(fake)
	config := testConfig()
	fragments := map[string]ruleset.Fragment{}
	for i := range 50 {
		name := fmt.Sprintf("s%d", i)
		fragments[name] = config.Service(service(name, fmt.Sprintf("10.97.1.%d", i)), slice("node", "10.244.1.11"))
	}
	if err := d.Update(ctx, fragments); err != nil {
		t.Fatal(err)
	}
	fake.operations, fake.transactions = 0, 0

	changed := map[string]ruleset.Fragment{"s7": config.Service(service("s7", "10.97.1.7"), slice("other", "10.244.2.11", "10.244.2.12"))}
	if err := d.Update(ctx, changed); err != nil {
		t.Fatal(err)
	}
	// The chain, its flush and its two rules; its pod is still behind other services here, so the hairpin stays.
	if fake.transactions != 1 || fake.operations != 4 {
		t.Errorf("one service's change took %d transactions of %d operations", fake.transactions, fake.operations)
	}
	fake.operations, fake.transactions = 0, 0
	if err := d.Update(ctx, changed); err != nil {
		t.Fatal(err)
	}
	if fake.transactions != 0 {
		t.Errorf("no change took %d transactions", fake.transactions)
	}
}

// TestDifferencesAddUp: whatever the updates were, and whatever failed on the way, the table is the one that would have
// been written at once.
func TestDifferencesAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		fake := newFake()
		d := newPlane(fake)
		config := testConfig()
		current := map[string]ruleset.Fragment{}
		for range rapid.IntRange(1, 8).Draw(rt, "rounds") {
			update := map[string]ruleset.Fragment{}
			for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 0, 6, rapid.ID[int]).Draw(rt, "services") {
				owner := fmt.Sprintf("service s%d", i)
				var ips []string
				for range rapid.IntRange(0, 3).Draw(rt, "endpoints") {
					ips = append(ips, fmt.Sprintf("10.244.1.%d", rapid.IntRange(1, 5).Draw(rt, "ip")))
				}
				// Addresses overlap now and then, as a cache may show them.
				vip := fmt.Sprintf("10.97.0.%d", rapid.IntRange(i, i+1).Draw(rt, "vip"))
				fragment := config.Service(service(fmt.Sprintf("s%d", i), vip), slice("node", ips...))
				if rapid.IntRange(0, 4).Draw(rt, "deleted") == 0 {
					fragment = ruleset.Fragment{}
				}
				update[owner], current[owner] = fragment, fragment
			}
			if rapid.IntRange(0, 3).Draw(rt, "fails") == 0 {
				fake.fail = errors.New("the kernel is busy")
			}
			if err := d.Update(ctx, update); err != nil {
				fake.fail = nil
				if err := d.Update(ctx, nil); err != nil {
					rt.Fatal(err)
				}
			}
			fake.fail = nil
			if err := d.Update(ctx, nil); err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(dumpOf(t, current), sorted(fake.Dump())); diff != "" {
				rt.Fatal(diff)
			}
		}
	})
}

func TestConfigureAndCheck(t *testing.T) {
	ctx := context.Background()
	fake := newFake()
	d := newPlane(fake)
	if err := d.Update(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if d.Configure(testConfig()) {
		t.Error("the same configuration counts as a change")
	}
	config := testConfig()
	config.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}
	if !d.Configure(config) {
		t.Error("a new configuration counts as none")
	}
	if err := d.Update(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fake.Dump(), "ip saddr 10.244.9.0/24 ip daddr != 10.244.0.0/16 masquerade") {
		t.Error("the new pod network isn't in the rules")
	}
	if repaired, err := d.Check(ctx); repaired || err != nil {
		t.Errorf("in order: %v, %v", repaired, err)
	}
	tx := fake.NewTransaction()
	tx.Delete(&knftables.Table{})
	if err := fake.Run(ctx, tx); err != nil {
		t.Fatal(err)
	}
	if repaired, err := d.Check(ctx); !repaired || err != nil {
		t.Errorf("deleted by a stranger: %v, %v", repaired, err)
	}
	if diff := cmp.Diff("", strings.Join(missing(fake.Dump(), "nat-prerouting", "cluster-ips"), " ")); diff != "" {
		t.Error(diff)
	}
}

func missing(text string, words ...string) []string {
	var out []string
	for _, word := range words {
		if !strings.Contains(text, word) {
			out = append(out, word)
		}
	}
	return out
}

func TestEndedUDPFlowsAreForgotten(t *testing.T) {
	d := newPlane(newFake())
	var forgotten []ruleset.Flow
	d.forget = func(flows []ruleset.Flow) error {
		forgotten = append(forgotten, flows...)
		return nil
	}
	flow := func(endpoint string) ruleset.Flow {
		return ruleset.Flow{VIP: netip.MustParseAddrPort("10.97.0.10:53"), Endpoint: netip.MustParseAddrPort(endpoint)}
	}
	element := []ruleset.Element{{Set: ruleset.ClusterIPs, Key: []string{"10.97.0.10"}}}
	ctx := context.Background()
	a, b := flow("10.244.1.1:53"), flow("10.244.1.2:53")
	for _, flows := range [][]ruleset.Flow{{a, b}, {b}, {b}} {
		if err := d.Update(ctx, map[string]ruleset.Fragment{"dns": {Elements: element, UDP: flows}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Update(ctx, map[string]ruleset.Fragment{"dns": {}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{a.Endpoint.String(), b.Endpoint.String()}, []string{forgotten[0].Endpoint.String(), forgotten[1].Endpoint.String()}); diff != "" || len(forgotten) != 2 {
		t.Errorf("%v %s", forgotten, diff)
	}
}

func BenchmarkUpdateOf1000Services(b *testing.B) {
	ctx := context.Background()
	d := newPlane(newFake())
	config := testConfig()
	fragments := map[string]ruleset.Fragment{}
	for i := range 1000 {
		name := fmt.Sprintf("s%d", i)
		fragments[name] = config.Service(service(name, fmt.Sprintf("10.97.%d.%d", i/250, i%250+1)), slice("node", "10.244.1.11"))
	}
	if err := d.Update(ctx, fragments); err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		ip := fmt.Sprintf("10.244.1.%d", n%200+1)
		if c := d.state.update(map[string]ruleset.Fragment{"s1": config.Service(service("s1", "10.97.0.2"), slice("node", ip))}); c == nil {
			b.Fatal("no change")
		}
	}
}
