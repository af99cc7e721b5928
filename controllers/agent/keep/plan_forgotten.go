// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/runtime/stray"
)

// forgotten is what a runtime has made on a machine: all of it where it is found, and what nobody knows any more where it is planned.
type forgotten struct {
	stray.Found
	leases []podnetwork.Lease
}

// What is being made isn't in the runtime's lists yet. Two rules keep it from being taken for forgotten.
const (
	// shimAge is for shims: one without a folder is on its way out, whoever made it, and gets the time to end by itself.
	shimAge = 10 * time.Second
	// makingMost is for the rest: no sandbox is made for as long as that. What is older than the runtime itself needs no such time, for
	// nobody can be making it.
	makingMost = 10 * time.Minute
)

// planForgotten chooses what goes. ids are the sandboxes and containers that the runtime has named after everything was found, infos what
// it says of its sandboxes, which is needed of namespaces alone (see unclaimed).
//
//	a shim       its folder is gone, by which alone the runtime would find it; nothing runs below it; the runtime doesn't name its ID
//	a namespace  no process is in it, and the runtime doesn't name it
//	an address   its sandbox isn't named and has no bundle, and the namespace that it was given to is gone
//	a bundle     the runtime had begun to remove it, and is dead
func planForgotten(found forgotten, ids map[string]bool, infos []string, now time.Time) forgotten {
	var out forgotten
	bundles := map[string]bool{}
	for _, b := range found.Bundles {
		bundles[b.ID] = !b.Dropped || bundles[b.ID]
		if b.Dropped && b.Made.Before(found.Since) {
			out.Bundles = append(out.Bundles, b)
		}
	}
	for _, s := range found.Shims {
		if s.Folderless && !s.Busy && !ids[s.ID] && !bundles[s.ID] && s.Age >= shimAge {
			out.Shims = append(out.Shims, s)
		}
	}
	for _, n := range unclaimed(found, now) {
		if !named(n.Path, infos) {
			out.Netns = append(out.Netns, n)
		}
	}
	for _, l := range found.leases {
		if !l.Used && !ids[l.Sandbox] && !bundles[l.Sandbox] && made(l.Made, found.Since, now) {
			out.leases = append(out.leases, l)
		}
	}
	return out
}

// unclaimed are the namespaces that may be nobody's: only when there are some is the runtime asked for the details of its sandboxes.
func unclaimed(found forgotten, now time.Time) []stray.Netns {
	var out []stray.Netns
	for _, n := range found.Netns {
		if !n.Used && made(n.Made, found.Since, now) {
			out = append(out, n)
		}
	}
	return out
}

// made says that something isn't being made any more.
func made(at, since, now time.Time) bool {
	return !since.IsZero() && (at.Before(since) || now.Sub(at) >= makingMost)
}

// named says that a sandbox's details have the path in them, whichever field it is in: that differs between versions.
func named(path string, infos []string) bool {
	for _, info := range infos {
		if strings.Contains(info, filepath.Base(path)) {
			return true
		}
	}
	return false
}
