// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"sigs.k8s.io/knftables"

	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// DefaultTable names the one table per family that is an agent's; nobody else should touch it. Two agents in one network namespace need two.
const DefaultTable = "pinnace"

// Dataplane keeps the table of one address family. It is safe for concurrent use.
type Dataplane struct {
	config ruleset.Config
	nft    knftables.Interface
	forget func(flows []ruleset.Flow) error

	mu     sync.Mutex
	state  *state
	synced bool
}

// New prepares the dataplane in the network namespace of the process, in the table of the given name. It needs the nft program and
// root, and says so.
func New(table string, config ruleset.Config) (*Dataplane, error) {
	family := knftables.IPv4Family
	if config.Family == ruleset.IPv6 {
		family = knftables.IPv6Family
	}
	nft, err := knftables.New(family, table)
	if err != nil {
		return nil, fmt.Errorf("services need the program nft, version 1.0.1 or later, and root: install the package nftables: %w", err)
	}
	return NewWith(config, nft), nil
}

// NewWith is New over a given nftables, such as knftables' fake.
func NewWith(config ruleset.Config, nft knftables.Interface) *Dataplane {
	return &Dataplane{config: config, nft: nft, state: newState(), forget: forgetFlows}
}

// Config is the present configuration.
func (d *Dataplane) Config() ruleset.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}

// Configure changes the configuration; the next Update writes the table anew. changed is false when it is the same. The
// family can't be changed.
func (d *Dataplane) Configure(config ruleset.Config) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	config.Family = d.config.Family
	if reflect.DeepEqual(config, d.config) {
		return false
	}
	d.config, d.synced = config, false
	return true
}

// Update takes up what owners (services, pods) need; an owner with an empty fragment is forgotten. All of it reaches the
// kernel in one transaction, or nothing does. What couldn't be written is kept, so calling it again, even with nothing
// new, brings it all.
func (d *Dataplane) Update(ctx context.Context, fragments map[string]ruleset.Fragment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.state.update(fragments)
	if !d.synced {
		if err := d.rewrite(ctx); err != nil {
			return err
		}
	} else if !c.empty() {
		tx := d.nft.NewTransaction()
		write(tx, c)
		if err := d.nft.Run(ctx, tx); err != nil {
			d.synced = false
			// The table isn't what it was thought to be. Now is better than at the next change.
			if rewriteErr := d.rewrite(ctx); rewriteErr != nil {
				return fmt.Errorf("updating the packet rules: %w", errors.Join(err, rewriteErr))
			}
		}
	}
	if err := d.forget(c.endedUDP); err != nil {
		return fmt.Errorf("ending UDP connections to endpoints that are gone: %w", err)
	}
	return nil
}

// Check looks whether the table is still there as it was written, and writes it anew if not. repaired says that it did.
func (d *Dataplane) Check(ctx context.Context) (repaired bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.synced {
		return true, d.rewrite(ctx)
	}
	chains, err := d.nft.List(ctx, "chains")
	if err != nil && !knftables.IsNotFound(err) {
		return false, fmt.Errorf("looking at the packet rules: %w", err)
	}
	slices.Sort(chains)
	if slices.Equal(chains, d.chainNames()) {
		return false, nil
	}
	return true, d.rewrite(ctx)
}

// chainNames are the chains that should be there, sorted.
func (d *Dataplane) chainNames() []string {
	names := map[string]bool{}
	for _, chain := range d.config.Static().Chains {
		names[chain.Name] = true
	}
	for _, fragment := range d.state.fragments {
		for _, chain := range fragment.Chains {
			names[chain.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Remove takes the whole table away.
func (d *Dataplane) Remove(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced = false
	tx := d.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that deleting one that is missing is no error
	tx.Delete(&knftables.Table{})
	if err := d.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("removing the packet rules: %w", err)
	}
	return nil
}

// rewrite replaces the table whole. The kernel does it at once: no packet sees it half done.
func (d *Dataplane) rewrite(ctx context.Context) error {
	d.synced = false
	tx := d.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("services and host ports of the Pinnace node " + d.config.NodeName)})
	writeStatic(tx, d.config.Static())
	write(tx, d.state.all())
	if err := d.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("writing the packet rules: %w", err)
	}
	d.synced = true
	return nil
}

func writeStatic(tx *knftables.Transaction, static ruleset.Static) {
	for _, set := range static.Sets {
		if set.Verdicts {
			tx.Add(&knftables.Map{Name: set.Name, Type: set.Type + " : verdict"})
		} else {
			tx.Add(&knftables.Set{Name: set.Name, Type: set.Type})
		}
	}
	for _, base := range static.Chains {
		chain := &knftables.Chain{Name: base.Name}
		if base.Hook != "" {
			chain.Type = knftables.PtrTo(knftables.BaseChainType(base.Type))
			chain.Hook = knftables.PtrTo(knftables.BaseChainHook(base.Hook))
			chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(base.Priority))
		}
		tx.Add(chain)
	}
	for _, base := range static.Chains {
		for _, rule := range base.Rules {
			tx.Add(&knftables.Rule{Chain: base.Name, Rule: rule})
		}
	}
}

// write brings a change into a transaction, in an order in which nothing refers to what isn't there.
func write(tx *knftables.Transaction, c *change) {
	for _, chain := range c.setChains {
		object := &knftables.Chain{Name: chain.Name, Comment: knftables.PtrTo(chain.Comment)}
		tx.Add(object)
		if !c.newChains[chain.Name] {
			tx.Flush(object)
		}
		for _, rule := range chain.Rules {
			tx.Add(&knftables.Rule{Chain: chain.Name, Rule: rule})
		}
	}
	for _, e := range c.deleteElements {
		tx.Delete(toElement(e))
	}
	for _, e := range c.addElements {
		tx.Add(toElement(e))
	}
	for _, name := range c.deleteChains {
		tx.Flush(&knftables.Chain{Name: name})
		tx.Delete(&knftables.Chain{Name: name})
	}
}

func toElement(e ruleset.Element) *knftables.Element {
	switch e.Set {
	case ruleset.Services, ruleset.NodePorts, ruleset.HostPorts:
		return &knftables.Element{Map: e.Set, Key: e.Key, Value: []string{e.Value}}
	}
	return &knftables.Element{Set: e.Set, Key: e.Key}
}
