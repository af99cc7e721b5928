// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"hash/fnv"
	"math/big"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Upstream's default range of node ports.
const (
	firstNodePort = 30000
	lastNodePort  = 32767
)

// hashOf spreads services over a range, the same way in each process.
func hashOf(words ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, words...)
	return h.Sum64()
}

// pickAddress returns a free address of the range: where the service's name falls, or the next free one after that. The
// first addresses of the range are left for people to choose from, as upstream does, and taken last.
func pickAddress(prefix netip.Prefix, key types.NamespacedName, taken func(netip.Addr) bool) (netip.Addr, bool) {
	size := usable(prefix)
	if size == 0 {
		return netip.Addr{}, false
	}
	reserved := min(max(16, size/16), 256)
	if reserved >= size {
		reserved = 0
	}
	upper := size - reserved
	start := hashOf(key.Namespace, key.Name, prefix) % upper
	for i := range upper {
		if addr := nth(prefix, reserved+(start+i)%upper); !taken(addr) {
			return addr, true
		}
	}
	for i := range reserved {
		if addr := nth(prefix, i); !taken(addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// usable is how many addresses can be given out: without the network's own and, with IPv4, the broadcast address. An
// IPv6 range counts as at most 2^20, which bounds the search.
func usable(prefix netip.Prefix) uint64 {
	bits := prefix.Addr().BitLen() - prefix.Bits()
	switch {
	case bits > 20:
		return 1 << 20
	case prefix.Addr().Is4() && bits >= 2:
		return 1<<bits - 2
	case bits >= 1:
		return 1<<bits - 1
	}
	return 0
}

// nth is the n-th address of the range that can be given out, from 0.
func nth(prefix netip.Prefix, n uint64) netip.Addr {
	base := prefix.Masked().Addr()
	sum := new(big.Int).SetBytes(base.AsSlice())
	sum.Add(sum, new(big.Int).SetUint64(n+1))
	out := make([]byte, base.BitLen()/8)
	addr, _ := netip.AddrFromSlice(sum.FillBytes(out))
	return addr
}

// nodePort is a port of every node.
type nodePort struct {
	protocol corev1.Protocol
	port     int32
}

// pickNodePort returns a free node port for a service's port.
func pickNodePort(key types.NamespacedName, protocol corev1.Protocol, port int32, taken func(nodePort) bool) (int32, bool) {
	const size = lastNodePort - firstNodePort + 1
	start := hashOf(key.Namespace, key.Name, protocol, port) % size
	for i := range uint64(size) {
		candidate := int32(firstNodePort + (start+i)%size)
		if !taken(nodePort{protocol, candidate}) {
			return candidate, true
		}
	}
	return 0, false
}
