// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"math/big"
	"net/netip"
)

// Pool hands out the subnets of a range. It is pure, and not safe for concurrent use.
type Pool struct {
	cluster netip.Prefix
	bits    int
	size    int
	used    []bool
	owner   map[string]int // node → subnet
}

// maxSubnets bounds a pool: beyond this, a mistyped mask would cost memory for nothing.
const maxSubnets = 1 << 16

// NewPool makes a pool of all subnets with that many bits in a cluster's range.
func NewPool(cluster netip.Prefix, bits int) (*Pool, error) {
	if !cluster.IsValid() {
		return nil, fmt.Errorf("the pod range isn't a CIDR; give one such as 10.244.0.0/16")
	}
	cluster = cluster.Masked()
	if bits < cluster.Bits() || bits > cluster.Addr().BitLen() {
		return nil, fmt.Errorf("a node's part of the pod range %s can't be a /%d; choose a mask between /%d and /%d",
			cluster, bits, cluster.Bits(), cluster.Addr().BitLen())
	}
	if bits-cluster.Bits() > 16 {
		return nil, fmt.Errorf("the pod range %s has more than %d parts of /%d; choose a shorter mask for a node's part", cluster, maxSubnets, bits)
	}
	size := 1 << (bits - cluster.Bits())
	return &Pool{cluster: cluster, bits: bits, size: size, used: make([]bool, size), owner: map[string]int{}}, nil
}

// Occupy notes that a node has a subnet. A subnet outside the range is ignored. An error says that another node has it already.
func (p *Pool) Occupy(node string, subnet netip.Prefix) error {
	i, ok := p.indexOf(subnet)
	if !ok {
		return nil
	}
	if have, ok := p.owner[node]; ok && have == i {
		return nil
	}
	if p.used[i] {
		return fmt.Errorf("node %s has the pod range %s, which another node has, too; delete one of the nodes", node, subnet)
	}
	p.used[i], p.owner[node] = true, i
	return nil
}

// Take gives the node a subnet: the one that it has, or the lowest free one.
func (p *Pool) Take(node string) (netip.Prefix, error) {
	if i, ok := p.owner[node]; ok {
		return p.subnet(i), nil
	}
	for i, used := range p.used {
		if !used {
			p.used[i], p.owner[node] = true, i
			return p.subnet(i), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("the pod range %s has no free /%d left for node %s; remove nodes or start with a larger range", p.cluster, p.bits, node)
}

// Release takes a node's subnet back.
func (p *Pool) Release(node string) {
	if i, ok := p.owner[node]; ok {
		p.used[i] = false
		delete(p.owner, node)
	}
}

// subnet is the range's i-th subnet.
func (p *Pool) subnet(i int) netip.Prefix {
	addr := p.cluster.Addr()
	offset := new(big.Int).Lsh(big.NewInt(int64(i)), uint(addr.BitLen()-p.bits))
	sum := offset.Add(offset, new(big.Int).SetBytes(addr.AsSlice()))
	raw := sum.FillBytes(make([]byte, addr.BitLen()/8))
	start, _ := netip.AddrFromSlice(raw) // the length is right by construction
	return netip.PrefixFrom(start, p.bits)
}

// indexOf is the inverse of subnet.
func (p *Pool) indexOf(subnet netip.Prefix) (int, bool) {
	if !subnet.IsValid() || subnet.Bits() != p.bits || !p.cluster.Contains(subnet.Addr()) {
		return 0, false
	}
	offset := new(big.Int).Sub(new(big.Int).SetBytes(subnet.Masked().Addr().AsSlice()), new(big.Int).SetBytes(p.cluster.Addr().AsSlice()))
	return int(offset.Rsh(offset, uint(p.cluster.Addr().BitLen()-p.bits)).Int64()), true
}
