// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// state is the content of the table that depends on services and pods: fragments by their owner, and what they add up to.
// Several owners may want the same element: a pod behind two services needs its hairpin once, and of two services with one
// address, which the API keeps apart but a cache may show, one must win.
type state struct {
	fragments map[string]ruleset.Fragment
	// elements holds who wants an element, by set and key.
	elements map[elementID]map[string]string // owner → value
}

type elementID struct{ set, key string }

const keySeparator = "\x00"

func idOf(e ruleset.Element) elementID {
	return elementID{e.Set, strings.Join(e.Key, keySeparator)}
}

func newState() *state {
	return &state{fragments: map[string]ruleset.Fragment{}, elements: map[elementID]map[string]string{}}
}

// value is what an element maps to: what the first of its owners by name says.
func (s *state) value(id elementID) (string, bool) {
	owners := s.elements[id]
	if len(owners) == 0 {
		return "", false
	}
	return owners[slices.Min(slices.Collect(maps.Keys(owners)))], true
}

// change is the difference between two states of the table.
type change struct {
	// set chains are written whole; deleted ones are no longer referred to.
	setChains    []ruleset.Chain
	newChains    map[string]bool
	deleteChains []string
	// Elements that change their value are both deleted and added.
	deleteElements, addElements []ruleset.Element
	// endedUDP are flows whose endpoint is gone.
	endedUDP []ruleset.Flow
}

func (c *change) empty() bool {
	return len(c.setChains)+len(c.deleteChains)+len(c.deleteElements)+len(c.addElements) == 0
}

// update takes up fragments by owner; an empty one forgets the owner. It returns what has to change in the kernel.
func (s *state) update(fragments map[string]ruleset.Fragment) *change {
	c := &change{newChains: map[string]bool{}}
	before := map[elementID]*string{} // nil: it wasn't there
	touch := func(e ruleset.Element) elementID {
		id := idOf(e)
		if _, seen := before[id]; !seen {
			before[id] = nil
			if value, ok := s.value(id); ok {
				before[id] = &value
			}
		}
		return id
	}
	for _, owner := range slices.Sorted(maps.Keys(fragments)) {
		old, fresh := s.fragments[owner], fragments[owner]
		c.diffChains(old.Chains, fresh.Chains)
		for _, e := range old.Elements {
			id := touch(e)
			delete(s.elements[id], owner)
			if len(s.elements[id]) == 0 {
				delete(s.elements, id)
			}
		}
		for _, e := range fresh.Elements {
			id := touch(e)
			if s.elements[id] == nil {
				s.elements[id] = map[string]string{}
			}
			s.elements[id][owner] = e.Value
		}
		for _, flow := range old.UDP {
			if !slices.Contains(fresh.UDP, flow) {
				c.endedUDP = append(c.endedUDP, flow)
			}
		}
		if len(fresh.Chains)+len(fresh.Elements) == 0 {
			delete(s.fragments, owner)
		} else {
			s.fragments[owner] = fresh
		}
	}
	c.diffElements(s, before)
	return c
}

func (c *change) diffChains(old, fresh []ruleset.Chain) {
	byName := map[string]ruleset.Chain{}
	for _, chain := range old {
		byName[chain.Name] = chain
	}
	for _, chain := range fresh {
		previous, known := byName[chain.Name]
		delete(byName, chain.Name)
		if known && slices.Equal(previous.Rules, chain.Rules) {
			continue
		}
		c.setChains = append(c.setChains, chain)
		c.newChains[chain.Name] = !known
	}
	c.deleteChains = append(c.deleteChains, slices.Sorted(maps.Keys(byName))...)
}

func (c *change) diffElements(s *state, before map[elementID]*string) {
	ids := slices.SortedFunc(maps.Keys(before), func(a, b elementID) int {
		return cmp.Or(cmp.Compare(a.set, b.set), cmp.Compare(a.key, b.key))
	})
	for _, id := range ids {
		old := before[id]
		fresh, present := s.value(id)
		if old != nil && present && *old == fresh {
			continue
		}
		if old != nil {
			c.deleteElements = append(c.deleteElements, element(id, *old))
		}
		if present {
			c.addElements = append(c.addElements, element(id, fresh))
		}
	}
}

func element(id elementID, value string) ruleset.Element {
	return ruleset.Element{Set: id.set, Key: strings.Split(id.key, keySeparator), Value: value}
}

// all is the whole content as a change of an empty table.
func (s *state) all() *change {
	c := &change{newChains: map[string]bool{}}
	for _, owner := range slices.Sorted(maps.Keys(s.fragments)) {
		for _, chain := range s.fragments[owner].Chains {
			c.setChains = append(c.setChains, chain)
			c.newChains[chain.Name] = true
		}
	}
	for id := range s.elements {
		value, _ := s.value(id)
		c.addElements = append(c.addElements, element(id, value))
	}
	slices.SortFunc(c.addElements, func(a, b ruleset.Element) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), slices.Compare(a.Key, b.Key))
	})
	return c
}
