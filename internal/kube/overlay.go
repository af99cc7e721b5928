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
// doesn't show yet, and those whose deletion it doesn't show yet with a deletion timestamp. What the cache has caught up with is
// forgotten, so cached must come from the cache and nowhere else. The cached objects are not changed.
func (o *Overlay[T]) Apply(owner types.UID, cached []T, now time.Time) []T {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := make(map[types.UID]bool, len(cached))
	for _, obj := range cached {
		seen[obj.GetUID()] = true
		if e, ok := o.byOwner[owner][obj.GetUID()]; ok && e.caughtUp(obj, now) {
			o.drop(owner, obj.GetUID())
		}
	}
	for uid, e := range o.byOwner[owner] {
		if !seen[uid] && (!e.created || now.Sub(e.at) >= forgetAfter) {
			o.drop(owner, uid)
		}
	}
	return o.lay(owner, cached)
}

// Relay lays what was written since Apply over the objects that Apply returned. It forgets nothing: they may be own writes themselves,
// which say nothing about the cache.
func (o *Overlay[T]) Relay(owner types.UID, applied []T) []T {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lay(owner, applied)
}

// caughtUp says whether a cached object shows all that is noted about it.
func (e entry[T]) caughtUp(cached T, now time.Time) bool {
	if now.Sub(e.at) >= forgetAfter {
		return true
	}
	if e.deleted {
		return cached.GetDeletionTimestamp() != nil
	}
	return !Older(cached, e.obj)
}

// lay returns the list with everything that is noted about the owner's objects laid over it.
func (o *Overlay[T]) lay(owner types.UID, list []T) []T {
	entries := o.byOwner[owner]
	if len(entries) == 0 {
		return list
	}
	out := make([]T, 0, len(list)+len(entries))
	seen := make(map[types.UID]bool, len(list))
	for _, obj := range list {
		seen[obj.GetUID()] = true
		e, ok := entries[obj.GetUID()]
		switch {
		case ok && e.deleted && obj.GetDeletionTimestamp() == nil:
			out = append(out, o.dying(obj, e.at))
		case ok && !e.deleted && Older(obj, e.obj):
			out = append(out, e.obj)
		default:
			out = append(out, obj)
		}
	}
	for uid, e := range entries {
		switch {
		case seen[uid] || !e.created:
		case e.deleted:
			out = append(out, o.dying(e.obj, e.at)) // it holds its name until the watch has told of its end
		default:
			out = append(out, e.obj)
		}
	}
	return out
}

// dying returns an object as it is after the API server has accepted its deletion.
func (o *Overlay[T]) dying(obj T, at time.Time) T {
	out, since := o.copyOf(obj), metav1.NewTime(at)
	out.SetDeletionTimestamp(&since)
	return out
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
