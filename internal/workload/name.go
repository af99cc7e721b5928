// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"hash/fnv"

	"k8s.io/apimachinery/pkg/types"
)

// alphabet is upstream's for generated names: no vowels, so that no words come out, and no digits that look like letters.
const alphabet = "bcdfghjklmnpqrstvwxz2456789"

const (
	suffixLength = 5
	// maxBase keeps a pod's name within 63 characters, because it becomes the pod's host name.
	maxBase = 63 - suffixLength
	// suffixes is the number of different suffixes: len(alphabet) to the power of suffixLength.
	suffixes = 27 * 27 * 27 * 27 * 27
)

// Name is the name of the pod in a slot of an owner. It depends on nothing but the arguments, so that creating the same
// slot twice meets the same name; two slots of one owner never share a name.
func Name(owner string, uid types.UID, slot int) string {
	base := owner + "-"
	if len(base) > maxBase {
		base = base[:maxBase]
	}
	sum := fnv.New64a()
	sum.Write([]byte(uid))
	seed := sum.Sum64()
	// slot → start + slot*step (mod suffixes) hits each suffix once, as 3 is the only prime factor of suffixes.
	start, step := seed%suffixes, (seed>>32)%suffixes
	if step%3 == 0 {
		step++
	}
	n := (start + uint64(slot)*step) % suffixes
	var suffix [suffixLength]byte
	for i := range suffix {
		suffix[i] = alphabet[n%uint64(len(alphabet))]
		n /= uint64(len(alphabet))
	}
	return base + string(suffix[:])
}

// FreeNames returns the names of the n lowest slots that nobody holds. A pod that ended or is terminating still holds its name.
func FreeNames(owner string, uid types.UID, n int, taken map[string]bool) []string {
	names := make([]string, 0, n)
	for slot := 0; len(names) < n && slot < suffixes; slot++ {
		if name := Name(owner, uid, slot); !taken[name] {
			names = append(names, name)
		}
	}
	return names
}
