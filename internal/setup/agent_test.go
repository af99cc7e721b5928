// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"net/netip"
	"testing"
)

// TestSimulatedAddresses: no two simulated nodes share an address, and all of them are in the range set aside for benchmarks.
func TestSimulatedAddresses(t *testing.T) {
	network := netip.MustParsePrefix("198.18.0.0/15")
	seen := map[netip.Addr]bool{}
	for i := range 1000 {
		address := simulatedAddress(i)
		if !network.Contains(address) || seen[address] {
			t.Fatalf("node %d has the address %s", i, address)
		}
		seen[address] = true
	}
	if first := simulatedAddress(0).String(); first != "198.18.0.1" {
		t.Errorf("the first is %s", first)
	}
}
