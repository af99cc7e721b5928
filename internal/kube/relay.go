// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// relayBuffer is how many wakings may wait to be handed over.
const relayBuffer = 1024

// Relay passes the statuses that one controller knows to another of the same process before they are written, so that the other need not wait for
// a write, and counts on the way need no write at all. It isn't older than what is written, since a status is told again when it is; and it holds
// nothing that matters after a restart, since a status can be computed again.
//
// S is the status of one kind. All methods may be called concurrently.
type Relay[S any] struct {
	mu     sync.Mutex
	latest map[types.UID]S
	wake   chan event.GenericEvent
}

// NewRelay makes an empty relay.
func NewRelay[S any]() *Relay[S] {
	return &Relay[S]{latest: map[types.UID]S{}, wake: make(chan event.GenericEvent, relayBuffer)}
}

// Tell passes on an object's status, which nobody may change any longer. written says that the object has it already, as the API server knows
// it. A waking that finds no room is dropped: the write will wake, too.
func (r *Relay[S]) Tell(obj client.Object, status S, written bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.latest[obj.GetUID()]
	if (!known && written) || (known && equality.Semantic.DeepEqual(last, status)) {
		return
	}
	r.latest[obj.GetUID()] = status
	select {
	case r.wake <- event.GenericEvent{Object: obj}:
	default:
	}
}

// Latest returns the status that was told last of an object, if one was.
func (r *Relay[S]) Latest(uid types.UID) (S, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, ok := r.latest[uid]
	return status, ok
}

// Forget drops what was told of an object that is gone.
func (r *Relay[S]) Forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.latest, uid)
}

// Source wakes a controller when a status is told, through the Generic method of h. A relay feeds one controller.
func (r *Relay[S]) Source(h handler.EventHandler) source.Source { return source.Channel(r.wake, h) }
