// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

const (
	// SnapshotLabel marks a snapshot of config; its value is the UID of the workload that owns it.
	SnapshotLabel = "pinnace.dev/config-snapshot-for"
	// SnapshotSource is the annotation that says what a snapshot is a copy of.
	SnapshotSource = "pinnace.dev/config-snapshot-of"
)

const (
	// configDelay is how long a change of config waits for others: who applies config and a workload together means one rollout.
	configDelay = time.Second
	// configSync is how long the first look at config waits for the watch to begin.
	configSync = 10 * time.Second
	// snapshotRest is how old a snapshot must be before it is cleared away: another manager may have made it a moment ago.
	snapshotRest = 10 * time.Second
)

// Configs sees to the config of workloads whose content is part of their revision (rolloutOn: Config). It watches the metadata of
// ConfigMaps and Secrets, Pinnace's and native ones, and reads the content of those alone that a workload refers to, past the cache, once
// for each version. Until a workload asks, it watches and reads nothing. No content is kept, logged or reported. All methods may be called concurrently.
type Configs struct {
	client client.Client
	live   client.Reader

	cache cache.Cache
	watch func(source.Source) error

	mu       sync.Mutex
	watching bool
	// users are the workloads that refer to an object, uses the same the other way round.
	users map[object]map[reconcile.Request]bool
	uses  map[reconcile.Request][]object
	// digests are those of the versions that were read last.
	digests map[types.UID]version
	// made are snapshots that the cache may not show yet, pruned those whose end it may not show yet.
	made   map[object]time.Time
	pruned map[types.UID]bool
}

// object is a ConfigMap or Secret, Pinnace's or native.
type object struct {
	revision.ConfigRef
	namespace string
}

type version struct{ resourceVersion, digest string }

// NewConfigs makes a Configs. live reads past the cache.
func NewConfigs(c client.Client, live client.Reader) *Configs {
	return &Configs{
		client: c, live: live, users: map[object]map[reconcile.Request]bool{}, uses: map[reconcile.Request][]object{},
		digests: map[types.UID]version{}, made: map[object]time.Time{}, pruned: map[types.UID]bool{},
	}
}

// Attach says which controller is to look at a workload whose config changed. It must be called before the controller runs.
func (c *Configs) Attach(from cache.Cache, to controller.Controller) {
	c.cache, c.watch = from, to.Watch
}

// Forget drops what is known about a workload that is gone or doesn't roll out on config.
func (c *Configs) Forget(user reconcile.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.register(user, nil)
}

// Pin pins the config that the owner's template refers to (revision.Pin) if on says so. The owner is looked at again when any of that config changes.
func (c *Configs) Pin(ctx context.Context, on pappsv1.RolloutTrigger, owner client.Object, gvk schema.GroupVersionKind, template *pcorev1.PodTemplateSpec) (revision.Pinned, error) {
	user := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(owner)}
	if on != pappsv1.RolloutOnConfig || owner.GetDeletionTimestamp() != nil {
		c.Forget(user)
		return revision.Pinned{}, nil
	}
	needs := revision.Needs(template)
	uses := make([]object, 0, 2*len(needs))
	for _, need := range needs {
		uses = append(uses, object{need.ConfigRef, owner.GetNamespace()})
	}
	// Before reading, so that no change falls in between.
	c.mu.Lock()
	c.register(user, uses)
	c.mu.Unlock()
	if err := c.start(); err != nil {
		return revision.Pinned{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, configSync)
	defer cancel()
	contents := map[revision.ConfigRef]revision.Content{}
	for _, need := range needs {
		content, there, err := c.content(ctx, owner, need.ConfigRef)
		if err != nil {
			return revision.Pinned{}, err
		}
		if there {
			contents[need.ConfigRef] = content
		}
	}
	pinned := revision.Pin(gvk.Kind+"/"+owner.GetName(), template, contents)
	for _, s := range pinned.Snapshots {
		uses = append(uses, object{s.ConfigRef, owner.GetNamespace()})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.register(user, uses)
	return pinned, nil
}

// register replaces what a workload refers to. The lock is held.
func (c *Configs) register(user reconcile.Request, uses []object) {
	for _, o := range c.uses[user] {
		if delete(c.users[o], user); len(c.users[o]) == 0 {
			delete(c.users, o)
		}
	}
	delete(c.uses, user)
	if len(uses) == 0 {
		return
	}
	c.uses[user] = uses
	for _, o := range uses {
		if c.users[o] == nil {
			c.users[o] = map[reconcile.Request]bool{}
		}
		c.users[o][user] = true
	}
}

var configKinds = []schema.GroupVersion{pcorev1.GroupVersion, corev1.SchemeGroupVersion}

// start begins to watch, the first time that somebody asks.
func (c *Configs) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watching {
		return nil
	}
	for _, group := range configKinds {
		for _, kind := range []string{revision.KindConfigMap, revision.KindSecret} {
			if err := c.watch(source.Kind(c.cache, metadata(group, kind), c.handler(kind))); err != nil {
				return fmt.Errorf("watching %ss: %w", kind, err)
			}
		}
	}
	c.watching = true
	return nil
}

func metadata(group schema.GroupVersion, kind string) *metav1.PartialObjectMetadata {
	out := &metav1.PartialObjectMetadata{}
	out.SetGroupVersionKind(group.WithKind(kind))
	return out
}

// handler wakes the workloads that refer to what changed.
func (c *Configs) handler(kind string) handler.TypedFuncs[*metav1.PartialObjectMetadata, reconcile.Request] {
	wake := func(obj *metav1.PartialObjectMetadata, q Queue) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for user := range c.users[object{revision.ConfigRef{Kind: kind, Name: obj.Name}, obj.Namespace}] {
			q.AddAfter(user, configDelay)
		}
	}
	return handler.TypedFuncs[*metav1.PartialObjectMetadata, reconcile.Request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*metav1.PartialObjectMetadata], q Queue) {
			wake(e.Object, q)
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*metav1.PartialObjectMetadata], q Queue) {
			if e.ObjectOld.ResourceVersion != e.ObjectNew.ResourceVersion {
				wake(e.ObjectNew, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*metav1.PartialObjectMetadata], q Queue) {
			c.mu.Lock()
			delete(c.digests, e.Object.UID)
			delete(c.pruned, e.Object.UID)
			delete(c.made, object{revision.ConfigRef{Kind: kind, Name: e.Object.Name}, e.Object.Namespace})
			c.mu.Unlock()
			wake(e.Object, q)
		},
	}
}

// content says what a reference holds, and whether anything is there: Pinnace's object first, then the native one.
func (c *Configs) content(ctx context.Context, owner client.Object, ref revision.ConfigRef) (revision.Content, bool, error) {
	key := types.NamespacedName{Namespace: owner.GetNamespace(), Name: ref.Name}
	for _, group := range configKinds {
		seen := metadata(group, ref.Kind)
		if err := c.cache.Get(ctx, key, seen); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return revision.Content{}, false, fmt.Errorf("looking for %s: %w", ref, err)
		}
		if seen.Labels[SnapshotLabel] == string(owner.GetUID()) {
			return revision.Content{Frozen: true}, true, nil
		}
		c.mu.Lock()
		known, ok := c.digests[seen.UID]
		c.mu.Unlock()
		if ok && known.resourceVersion == seen.ResourceVersion {
			return revision.Content{Digest: known.digest}, true, nil
		}
		found, err := c.read(ctx, group, ref.Kind, key)
		if apierrors.IsNotFound(err) {
			continue // it went a moment ago
		} else if err != nil {
			return revision.Content{}, false, err
		}
		return revision.Content{Digest: found.digest}, true, nil
	}
	return revision.Content{}, false, nil
}

// held is the content of one object.
type held struct {
	text   map[string]string
	bytes  map[string][]byte
	digest string
}

// read reads an object past the cache and notes its digest.
func (c *Configs) read(ctx context.Context, group schema.GroupVersion, kind string, key types.NamespacedName) (held, error) {
	obj := makeConfig(group, kind)
	if err := c.live.Get(ctx, key, obj); err != nil {
		return held{}, fmt.Errorf("reading %s %s: %w", kind, key.Name, err)
	}
	h := hold(obj)
	var err error
	if h.digest, err = revision.Digest(h.text, h.bytes); err != nil {
		return held{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.digests[obj.GetUID()] = version{obj.GetResourceVersion(), h.digest}
	return h, nil
}

func makeConfig(group schema.GroupVersion, kind string) client.Object {
	switch {
	case kind == revision.KindSecret && group == pcorev1.GroupVersion:
		return &pcorev1.Secret{}
	case kind == revision.KindSecret:
		return &corev1.Secret{}
	case group == pcorev1.GroupVersion:
		return &pcorev1.ConfigMap{}
	}
	return &corev1.ConfigMap{}
}

// hold takes the content out of an object. Of a Secret, stringData lies over data, as an agent reads it.
func hold(obj client.Object) held {
	switch o := obj.(type) {
	case *pcorev1.ConfigMap:
		return held{text: o.Data, bytes: o.BinaryData}
	case *corev1.ConfigMap:
		return held{text: o.Data, bytes: o.BinaryData}
	case *corev1.Secret:
		return held{bytes: o.Data}
	case *pcorev1.Secret:
		out := make(map[string][]byte, len(o.Data)+len(o.StringData))
		for k, v := range o.Data {
			out[k] = v
		}
		for k, v := range o.StringData {
			out[k] = []byte(v)
		}
		return held{bytes: out}
	}
	return held{}
}

// Ensure makes the snapshots that aren't there. Config that changed since Pin is a conflict: pin again.
func (c *Configs) Ensure(ctx context.Context, owner client.Object, gvk schema.GroupVersionKind, snapshots []revision.ConfigSnapshot) error {
	for _, s := range snapshots {
		there, err := c.shown(ctx, owner, s)
		if err != nil {
			return err
		}
		if !there {
			if err := c.create(ctx, owner, gvk, s); err != nil {
				return fmt.Errorf("making %s, a snapshot of %s: %w", s, s.Source, err)
			}
		}
	}
	return nil
}

// shown says whether the cache shows a snapshot, or will in a moment.
func (c *Configs) shown(ctx context.Context, owner client.Object, s revision.ConfigSnapshot) (bool, error) {
	key := types.NamespacedName{Namespace: owner.GetNamespace(), Name: s.Name}
	at := object{s.ConfigRef, key.Namespace}
	seen := metadata(pcorev1.GroupVersion, s.Kind)
	err := c.cache.Get(ctx, key, seen)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		delete(c.made, at)
		return seen.Labels[SnapshotLabel] == string(owner.GetUID()) && seen.DeletionTimestamp == nil && !c.pruned[seen.UID], nil
	case !apierrors.IsNotFound(err):
		return false, fmt.Errorf("looking for %s: %w", s, err)
	}
	made, ok := c.made[at]
	return ok && time.Since(made) < forgetAfter, nil
}

// create makes one snapshot from what its source holds now.
func (c *Configs) create(ctx context.Context, owner client.Object, gvk schema.GroupVersionKind, s revision.ConfigSnapshot) error {
	source, err := c.readSource(ctx, types.NamespacedName{Namespace: owner.GetNamespace(), Name: s.Source.Name}, s.Kind)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil || source.digest != s.Digest {
		return apierrors.NewConflict(pcorev1.GroupVersion.WithResource(s.Kind).GroupResource(), s.Source.Name, errors.New("it changed a moment ago"))
	}
	obj := makeSnapshot(owner, gvk, s, source)
	err = c.client.Create(ctx, obj)
	if apierrors.IsAlreadyExists(err) {
		err = c.recognise(ctx, owner, gvk, s)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made[object{s.ConfigRef, owner.GetNamespace()}] = time.Now()
	return nil
}

func (c *Configs) readSource(ctx context.Context, key types.NamespacedName, kind string) (held, error) {
	found, err := c.read(ctx, pcorev1.GroupVersion, kind, key)
	if apierrors.IsNotFound(err) {
		return c.read(ctx, corev1.SchemeGroupVersion, kind, key)
	}
	return found, err
}

func makeSnapshot(owner client.Object, gvk schema.GroupVersionKind, s revision.ConfigSnapshot, from held) client.Object {
	meta := metav1.ObjectMeta{
		Namespace: owner.GetNamespace(), Name: s.Name,
		Labels:          map[string]string{SnapshotLabel: string(owner.GetUID())},
		Annotations:     map[string]string{SnapshotSource: s.Source.Name},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, gvk)},
	}
	if s.Kind == revision.KindSecret {
		// The type says how somebody else uses a Secret; pods see the data alone.
		return &pcorev1.Secret{ObjectMeta: meta, Immutable: new(true), Data: from.bytes, Type: corev1.SecretTypeOpaque}
	}
	return &pcorev1.ConfigMap{ObjectMeta: meta, Immutable: new(true), Data: from.text, BinaryData: from.bytes}
}

// recognise finds out who holds the name of a snapshot: it is ours from a moment ago, or left by a workload of the same name that went
// without its dependents, and then adopted; anything else is in the way.
func (c *Configs) recognise(ctx context.Context, owner client.Object, gvk schema.GroupVersionKind, s revision.ConfigSnapshot) error {
	there := metadata(pcorev1.GroupVersion, s.Kind)
	if err := c.live.Get(ctx, types.NamespacedName{Namespace: owner.GetNamespace(), Name: s.Name}, there); err != nil {
		return fmt.Errorf("reading it, which was there already: %w", err)
	}
	ref := metav1.GetControllerOfNoCopy(there)
	switch {
	case ref != nil && ref.UID == owner.GetUID():
		return nil
	case ref != nil || there.Labels[SnapshotLabel] == "":
		return errors.New("somebody else's object has this name")
	}
	adopted := there.DeepCopy()
	adopted.Labels[SnapshotLabel] = string(owner.GetUID())
	adopted.OwnerReferences = append(adopted.OwnerReferences, *metav1.NewControllerRef(owner, gvk))
	return Patch(ctx, c.client, adopted, there)
}

// Prune deletes the owner's snapshots that none of the templates refers to. wait is when to call again for those that are too young.
func (c *Configs) Prune(ctx context.Context, owner client.Object, templates []*pcorev1.PodTemplateSpec, now time.Time) (wait time.Duration, err error) {
	keep := map[revision.ConfigRef]bool{}
	for _, t := range templates {
		for _, need := range revision.Needs(t) {
			keep[need.ConfigRef] = true
		}
	}
	for _, kind := range []string{revision.KindConfigMap, revision.KindSecret} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(pcorev1.GroupVersion.WithKind(kind + "List"))
		if err := c.cache.List(ctx, list, client.InNamespace(owner.GetNamespace()), client.MatchingLabels{SnapshotLabel: string(owner.GetUID())}, client.UnsafeDisableDeepCopy); err != nil {
			return 0, fmt.Errorf("listing snapshots: %w", err)
		}
		for i := range list.Items {
			old := &list.Items[i]
			if keep[revision.ConfigRef{Kind: kind, Name: old.Name}] || old.DeletionTimestamp != nil {
				continue
			}
			if left := old.CreationTimestamp.Add(snapshotRest).Sub(now); left > 0 {
				wait = max(wait, left)
				continue
			}
			target := metadata(pcorev1.GroupVersion, kind)
			target.Namespace, target.Name = old.Namespace, old.Name
			if err := c.client.Delete(ctx, target, client.Preconditions{UID: &old.UID}); client.IgnoreNotFound(err) != nil {
				return 0, fmt.Errorf("deleting snapshot %s: %w", old.Name, err)
			}
			c.mu.Lock()
			c.pruned[old.UID] = true
			delete(c.made, object{revision.ConfigRef{Kind: kind, Name: old.Name}, old.Namespace})
			c.mu.Unlock()
		}
	}
	return wait, nil
}
