// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/runtime/stray"
)

// Machine finds and ends what the runtime has made on this machine and may have forgotten.
type Machine interface {
	Find(ctx context.Context) (stray.Found, error)
	EndShim(ctx context.Context, s stray.Shim) error
	RemoveNetns(n stray.Netns) error
	RemoveBundle(b stray.Bundle) error
}

// Addresses finds and gives back the addresses that sandboxes were given.
type Addresses interface {
	List() ([]podnetwork.Lease, error)
	Release(l podnetwork.Lease) error
}

// EndForgotten ends what the runtime has made and forgotten, because it was killed in the middle of it. What is there is listed first, and
// the runtime asked after it; when it can't be asked, everything stays.
func (k *Keeper) EndForgotten(ctx context.Context) error {
	if k.options.Machine == nil {
		return nil
	}
	k.work.Lock()
	defer k.work.Unlock()
	var found forgotten
	var err error
	if found.Found, err = k.options.Machine.Find(ctx); err != nil {
		return err
	}
	if k.options.Addresses != nil {
		if found.leases, err = k.options.Addresses.List(); err != nil {
			return err
		}
	}
	ids, sandboxes, err := k.named(ctx)
	if err != nil {
		return err
	}
	var infos []string
	if len(unclaimed(found, k.options.Now())) > 0 {
		if infos, err = k.details(ctx, sandboxes); err != nil {
			return err
		}
	}
	return k.end(ctx, planForgotten(found, ids, infos, k.options.Now()))
}

// named are the IDs of all sandboxes and containers that the runtime knows; those of the sandboxes once more.
func (k *Keeper) named(ctx context.Context) (ids map[string]bool, sandboxes []string, err error) {
	list, err := k.options.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the sandboxes: %w", err)
	}
	containers, err := k.options.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the containers: %w", err)
	}
	ids = make(map[string]bool, len(list)+len(containers))
	for _, s := range list {
		ids[s.GetId()] = true
		sandboxes = append(sandboxes, s.GetId())
	}
	for _, c := range containers {
		ids[c.GetId()] = true
	}
	return ids, sandboxes, nil
}

// details is what the runtime says of each sandbox.
func (k *Keeper) details(ctx context.Context, sandboxes []string) ([]string, error) {
	var out []string
	for _, id := range sandboxes {
		info, err := k.options.Runtime.PodSandboxInfo(ctx, id)
		switch {
		case status.Code(err) == codes.NotFound: // It was removed meanwhile, with all that it had.
		case err != nil:
			return nil, fmt.Errorf("asking for the details of a sandbox: %w", err)
		default:
			out = append(out, info)
		}
	}
	return out, nil
}

// end goes on after a failure.
func (k *Keeper) end(ctx context.Context, plan forgotten) error {
	log := logf.FromContext(ctx)
	var failures []error
	done := func(what, which string, err error) {
		if err != nil {
			failures = append(failures, err)
			return
		}
		log.Info("Ended what the runtime had made and forgotten", "what", what, "which", which)
	}
	for _, s := range plan.Shims {
		done("shim", fmt.Sprintf("process %d of %s", s.PID, s.ID), k.options.Machine.EndShim(ctx, s))
	}
	for _, n := range plan.Netns {
		done("network namespace", n.Path, k.options.Machine.RemoveNetns(n))
	}
	for _, l := range plan.leases {
		done("address", l.Path, k.options.Addresses.Release(l))
	}
	for _, b := range plan.Bundles {
		done("bundle", b.Path, k.options.Machine.RemoveBundle(b))
	}
	return errors.Join(failures...)
}
