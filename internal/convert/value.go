// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"maps"
	"strconv"
)

// maxDepth and maxValues bound what is read through aliases, which can stand for
// themselves or multiply without end.
const (
	maxDepth  = 2000
	maxValues = 2_000_000
)

// resolve follows aliases to what they stand for.
func resolve(n *node) *node {
	for range maxDepth {
		if n == nil || n.kind != alias {
			return n
		}
		n = n.target
	}
	return nil
}

// field is a key of a mapping, and its value as written: perhaps an alias.
type field struct {
	key   string
	value *node
}

// fields returns what a mapping holds: its own keys, as often as they are
// written, then what it merges in by "<<" and doesn't have itself. A key that is
// no scalar gets a name that no other key has.
func fields(n *node) []field {
	n = resolve(n)
	if n == nil || n.kind != mapping {
		return nil
	}
	if n.read {
		return n.fields
	}
	// Remembered, since merges of merges would multiply; and marked before it is
	// known, since a mapping may merge itself.
	n.read = true
	var own []field
	var merged []*node
	known := map[string]bool{}
	for i := 0; i+1 < len(n.content); i += 2 {
		key, value := resolve(n.content[i]), n.content[i+1]
		switch {
		case key != nil && key.kind == scalar && key.tag == "!!merge":
			merged = append(merged, value)
		case key != nil && key.kind == scalar:
			own = append(own, field{key.text, value})
			known[key.text] = true
		default:
			own = append(own, field{"\x00" + strconv.Itoa(i), value})
		}
	}
	for _, value := range merged {
		sources := []*node{value}
		if list := resolve(value); list != nil && list.kind == sequence {
			sources = list.content
		}
		for _, source := range sources {
			for _, f := range fields(source) {
				if !known[f.key] {
					known[f.key] = true
					own = append(own, f)
				}
			}
		}
	}
	n.fields = own
	return own
}

// lookup returns a key's value as written, nil where the mapping hasn't got it,
// and how often the key is written.
func lookup(n *node, key string) (*node, int) {
	var found *node
	count := 0
	for _, f := range fields(n) {
		if f.key == key {
			found = f.value
			count++
		}
	}
	return found, count
}

// text returns a string scalar's value, through aliases; "" for anything else.
func text(n *node) string {
	if n = resolve(n); n == nil || n.kind != scalar || n.tag != "!!str" {
		return ""
	}
	return n.text
}

// stringAt returns the string at a path of keys, or "".
func stringAt(n *node, keys ...string) string {
	for _, key := range keys {
		n, _ = lookup(n, key)
	}
	return text(n)
}

// at extends a path by a key or an index. Keys may hold any visible character,
// so that the parts are kept apart by one which they can't hold.
func at(path, part string) string { return path + "\x01" + part }

// flatten writes every value of a document under its path, through aliases and
// merges. It returns false where that never ends or goes beyond the bounds.
func flatten(n *node, path string, into map[string]string) bool {
	budget := maxValues
	return flattenInto(n, path, into, &budget, 0)
}

func flattenInto(n *node, path string, into map[string]string, budget *int, depth int) bool {
	n = resolve(n)
	*budget--
	if n == nil || depth > maxDepth || *budget < 0 {
		return false
	}
	switch n.kind {
	case mapping:
		into[path] = "mapping"
		times := map[string]int{}
		for _, f := range fields(n) {
			part := f.key
			if times[f.key]++; times[f.key] > 1 {
				part += "\x02" + strconv.Itoa(times[f.key])
			}
			if !flattenInto(f.value, at(path, part), into, budget, depth+1) {
				return false
			}
		}
	case sequence:
		into[path] = "sequence"
		for i, item := range n.content {
			if !flattenInto(item, at(path, strconv.Itoa(i)), into, budget, depth+1) {
				return false
			}
		}
	default:
		into[path] = n.tag + " " + n.text
	}
	return true
}

// verify tells whether the edited chunk means what the original means, but for
// the edits. It is the proof that no anchor, alias or merge carried an edit to
// a place where it doesn't belong.
func verify(before []*node, edited []byte, preferJSON bool, edits []edit) bool {
	after, _, err := parse(edited, preferJSON)
	if err != nil || len(after) != len(before) {
		return false
	}
	want, got := map[string]string{}, map[string]string{}
	for i := range before {
		if !flatten(before[i], strconv.Itoa(i), want) || !flatten(after[i], strconv.Itoa(i), got) {
			return false
		}
	}
	for _, e := range edits {
		if _, ok := want[e.path]; !ok {
			return false
		}
		want[e.path] = "!!str " + e.to
	}
	return maps.Equal(want, got)
}
