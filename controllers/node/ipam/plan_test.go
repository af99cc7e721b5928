// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPool(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("10.244.0.0/16"), 24)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Occupy("b", netip.MustParsePrefix("10.244.0.0/24")); err != nil {
		t.Fatal(err)
	}
	if err := p.Occupy("c", netip.MustParsePrefix("10.244.0.0/24")); err == nil {
		t.Error("two nodes may have one range")
	}
	if err := p.Occupy("d", netip.MustParsePrefix("192.168.0.0/24")); err != nil {
		t.Errorf("a range that isn't ours: %v", err)
	}
	for node, want := range map[string]string{"a": "10.244.1.0/24", "b": "10.244.0.0/24"} {
		if got, err := p.Take(node); err != nil || got.String() != want {
			t.Errorf("node %s gets %s (%v), want %s", node, got, err, want)
		}
	}
	p.Release("b")
	if got, _ := p.Take("e"); got.String() != "10.244.0.0/24" {
		t.Errorf("a range that was given back isn't given out again, but %s", got)
	}
}

func TestPoolOfIPv6(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("fd00:10:244::/56"), 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fd00:10:244::/64", "fd00:10:244:1::/64"} {
		if got, _ := p.Take(want); got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestBadOptions: one sentence that says what is wrong.
func TestBadOptions(t *testing.T) {
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{PodCIDR: "10.244.0.0"}, "isn't a CIDR"},
		{Options{PodCIDR: "10.244.0.0/24", NodeMask: 16}, "can't be a /16"},
		{Options{PodCIDR: "10.0.0.0/8", NodeMask: 28}, "choose a shorter mask"},
	} {
		if _, err := NewReconciler(nil, nil, test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.o, err, test.want)
		}
	}
}

// TestNoRangeTwice: whatever nodes come, go and bring along, no two have the same range.
func TestNoRangeTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := NewPool(netip.MustParsePrefix("10.0.0.0/28"), 31)
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]netip.Prefix{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			node := fmt.Sprint("node-", rapid.IntRange(0, 11).Draw(t, "node"))
			if rapid.Bool().Draw(t, "goes") {
				p.Release(node)
				delete(have, node)
				continue
			}
			got, err := p.Take(node)
			if err != nil {
				if len(have) != 8 {
					t.Fatalf("with %d of 8 ranges given out: %v", len(have), err)
				}
				continue
			}
			have[node] = got
			for other, range2 := range have {
				if other != node && range2 == got {
					t.Fatalf("%s and %s both have %s", node, other, got)
				}
			}
			if i, ok := p.indexOf(got); !ok || p.subnet(i) != got {
				t.Fatalf("%s isn't subnet %d", got, i)
			}
		}
	})
}
