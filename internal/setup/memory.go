// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"runtime/debug"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// startupMemoryAfter leaves time for caches to fill and for the first pods.
const startupMemoryAfter = 20 * time.Second

// ReturnStartupMemory gives back, once, what only the start needed: garbage, and the pages of the program that are not
// used again. It blocks for some seconds; a process at rest is a third of the size afterwards. docs/bench.md has figures.
func ReturnStartupMemory(ctx context.Context) error {
	timer := time.NewTimer(startupMemoryAfter)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
	}
	debug.FreeOSMemory()
	// Where the kernel won't, nothing is lost but the saving.
	_ = supervise.ReturnOwnFilePages()
	return nil
}

// returnStartupMemory adds it to a manager; every process does it, leader or not.
func returnStartupMemory(mgr ctrl.Manager) error {
	return mgr.Add(manager.RunnableFunc(ReturnStartupMemory))
}
