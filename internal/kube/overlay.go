// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// forgetAfter is how long an own write is believed while the cache shows nothing of it. It only matters when an object
// was made and deleted while the watch was being restarted; a cache is never that far behind otherwise.
const forgetAfter = 30 * time.Second

// Overlay lays a controller's own writes over what its cache shows, so that a plan never starts from a state that the
// same controller has already changed. It is what upstream does with expectations and written resource versions,
// except that nobody has to wait for the cache. It holds no state that matters after a restart.
//
// T is the pointer type of one kind. All methods may be called concurrently.
type Overlay[T client.Object] struct {
	mu      sync.Mutex
	byOwner map[types.UID]map[types.UID]entry[T]
	copyOf  func(T) T
}

type entry[T client.Object] struct {
	obj T
	// deleted means that the API server accepted a deletion.
	deleted bool
	// created means that the cache may not have shown the object yet.
	created bool
	at      time.Time
}

// NewOverlay makes an empty overlay. copyOf must return a shallow copy, whose metadata fields can be set.
func NewOverlay[T client.Object](copyOf func(T) T) *Overlay[T] {
	return &Overlay[T]{byOwner: map[types.UID]map[types.UID]entry[T]{}, copyOf: copyOf}
}

// Created notes an object of the owner that the API server just made, as it answered.
func (o *Overlay[T]) Created(owner types.UID, obj T, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.set(owner, entry[T]{obj: obj, created: true, at: now})
}

// Updated notes an object of the owner that the API server just changed, as it answered.
func (o *Overlay[T]) Updated(owner types.UID, obj T, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, ok := o.byOwner[owner][obj.GetUID()]
	o.set(owner, entry[T]{obj: obj, created: ok && old.created, deleted: ok && old.deleted, at: now})
}

// Deleted notes that the API server accepted the deletion of the owner's object.
func (o *Overlay[T]) Deleted(owner types.UID, obj T, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.byOwner[owner][obj.GetUID()]
	o.set(owner, entry[T]{obj: obj, deleted: true, created: old.created, at: now})
}

// Gone forgets an object, because the watch reported its end.
func (o *Overlay[T]) Gone(owner, uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(owner, uid)
}

// Forget drops all that is noted about an owner that is gone.
func (o *Overlay[T]) Forget(owner types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byOwner, owner)
}

// Apply returns the owner's objects as they are after the controller's own writes: cached ones, those that the cache
// doesn't show yet, and those whose deletion it doesn't show yet with a deletion timestamp. The cached objects are
// not changed.
func (o *Overlay[T]) Apply(owner types.UID, cached []T, now time.Time) []T {
	o.mu.Lock()
	defer o.mu.Unlock()
	entries := o.byOwner[owner]
	if len(entries) == 0 {
		return cached
	}
	out := make([]T, 0, len(cached)+len(entries))
	seen := make(map[types.UID]bool, len(cached))
	for _, obj := range cached {
		uid := obj.GetUID()
		seen[uid] = true
		e, ok := entries[uid]
		if !ok {
			out = append(out, obj)
			continue
		}
		out = append(out, o.merge(owner, obj, e, now))
	}
	for uid, e := range entries {
		switch {
		case seen[uid]:
		case e.created && !e.deleted && now.Sub(e.at) < forgetAfter:
			out = append(out, e.obj)
		case now.Sub(e.at) >= forgetAfter || !e.created:
			o.drop(owner, uid)
		}
	}
	return out
}

// merge decides between a cached object and what is noted about it, and forgets the note when the cache has caught up.
func (o *Overlay[T]) merge(owner types.UID, cached T, e entry[T], now time.Time) T {
	if e.deleted {
		if cached.GetDeletionTimestamp() != nil || now.Sub(e.at) >= forgetAfter {
			o.drop(owner, cached.GetUID())
			return cached
		}
		dying := o.copyOf(cached)
		at := metav1.NewTime(e.at)
		dying.SetDeletionTimestamp(&at)
		return dying
	}
	if Older(cached, e.obj) && now.Sub(e.at) < forgetAfter {
		return e.obj
	}
	o.drop(owner, cached.GetUID())
	return cached
}

func (o *Overlay[T]) set(owner types.UID, e entry[T]) {
	if o.byOwner[owner] == nil {
		o.byOwner[owner] = map[types.UID]entry[T]{}
	}
	o.byOwner[owner][e.obj.GetUID()] = e
}

func (o *Overlay[T]) drop(owner, uid types.UID) {
	delete(o.byOwner[owner], uid)
	if len(o.byOwner[owner]) == 0 {
		delete(o.byOwner, owner)
	}
}

// Older says whether a is an earlier state of the same object than b. Resource versions that can't be compared count as
// not older.
func Older(a, b client.Object) bool {
	c, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err == nil && c < 0
}
