// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// StatusWriter writes the status of one kind: with the resource version that the controller knows (no read before the
// write), seeing its own last write even while the cache doesn't, and no more often than a window allows while only
// counters move. All methods may be called concurrently, for one object by one caller at a time.
type StatusWriter[T client.Object] struct {
	client client.Client
	window time.Duration

	mu   sync.Mutex
	last map[types.UID]written[T]
}

type written[T client.Object] struct {
	// obj is the answer to the last write, until the cache shows it.
	obj    T
	unseen bool
	at     time.Time
}

// StatusWindow is the shortest time between two status writes that only count, of a kind whose counts are for people: nobody reads faster.
const StatusWindow = time.Second

// NewStatusWriter makes a writer. window is the shortest time between two writes that report only progress.
func NewStatusWriter[T client.Object](c client.Client, window time.Duration) *StatusWriter[T] {
	return &StatusWriter[T]{client: c, window: window, last: map[types.UID]written[T]{}}
}

// Freshest returns the object as the writer last saw it, when the cache is behind that; else the cached object.
func (w *StatusWriter[T]) Freshest(cached T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.last[cached.GetUID()]
	if !ok || !last.unseen {
		return cached
	}
	if Older(cached, last.obj) {
		return last.obj
	}
	w.last[cached.GetUID()] = written[T]{at: last.at}
	return cached
}

// Delay says how long a write that reports only progress should wait; 0 means that it may be made now.
func (w *StatusWriter[T]) Delay(uid types.UID, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.last[uid]
	if !ok {
		return 0
	}
	return max(0, last.at.Add(w.window).Sub(now))
}

// Write puts obj's status. obj must be a copy; it holds the API server's answer afterwards.
func (w *StatusWriter[T]) Write(ctx context.Context, obj T, now time.Time) error {
	if err := w.client.Status().Update(ctx, obj); err != nil {
		return err
	}
	w.Wrote(obj, now)
	return nil
}

// Wrote notes an answer of the API server to a write of the same object that was made elsewhere.
func (w *StatusWriter[T]) Wrote(obj T, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[obj.GetUID()] = written[T]{obj, true, now}
}

// Forget drops what is known about an object that is gone.
func (w *StatusWriter[T]) Forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, uid)
}
