// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// memoMost bounds what is remembered; beyond, everything is forgotten, which costs a question each.
const memoMost = 2048

// memo remembers answers for a while. It is safe for concurrent use.
type memo[V any] struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[string]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

func newMemo[V any](now func() time.Time) *memo[V] {
	return &memo[V]{now: now, entries: map[string]entry[V]{}}
}

func (m *memo[V]) get(key string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok || m.now().After(e.until) {
		delete(m.entries, key)
		var zero V
		return zero, false
	}
	return e.value, true
}

func (m *memo[V]) put(key string, value V, lives time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.entries) >= memoMost {
		clear(m.entries)
	}
	m.entries[key] = entry[V]{value, m.now().Add(lives)}
}

// digest makes one key of several texts, so that no choice of texts yields another's key, and no token is kept in memory.
func digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return string(h.Sum(nil))
}
