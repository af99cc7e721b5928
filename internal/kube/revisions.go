// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// RevisionSet reads and writes the ControllerRevisions of owners, and remembers what it wrote until the cache shows it. All
// methods may be called concurrently, for one owner by one caller at a time.
type RevisionSet struct {
	client client.Client
	live   client.Reader
	// Own holds the writes that the cache may not show yet.
	Own *Overlay[*pappsv1.ControllerRevision]
}

// NewRevisionSet makes a RevisionSet. c reads from a cache that has AddIndexes' indexes; live reads past the cache.
func NewRevisionSet(c client.Client, live client.Reader) *RevisionSet {
	return &RevisionSet{client: c, live: live, Own: NewOverlay((*pappsv1.ControllerRevision).DeepCopy)}
}

// List returns the owner's history, after adopting the orphans that its selector matches and releasing what it doesn't match any
// longer. Revisions that are being deleted are left out. The revisions must not be changed.
func (s *RevisionSet) List(ctx context.Context, owner client.Object, gvk schema.GroupVersionKind, selector labels.Selector, now time.Time) (revision.History, error) {
	var all []*pappsv1.ControllerRevision
	for _, key := range []string{string(owner.GetUID()), Orphan} {
		var list pappsv1.ControllerRevisionList
		if err := s.client.List(ctx, &list, client.InNamespace(owner.GetNamespace()), client.MatchingFields{ByController: key}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing ControllerRevisions: %w", err)
		}
		for i := range list.Items {
			all = append(all, &list.Items[i])
		}
	}
	all = s.Own.Apply(owner.GetUID(), all, now)
	owned, err := Claim(ctx, s.client, s.live, owner, gvk, workload.ClaimObjects(owner, selector, all))
	if err != nil {
		return nil, err
	}
	var alive []*pappsv1.ControllerRevision
	for _, rev := range owned {
		if rev.DeletionTimestamp == nil {
			alive = append(alive, rev)
		}
	}
	return revision.NewHistory(alive), nil
}

// Ensure carries a step of the owner's history out and returns the revision that is the newest now. collided means that another object
// holds the name of the new revision: raise the owner's collision count and look again.
func (s *RevisionSet) Ensure(ctx context.Context, owner client.Object, step revision.Step, now time.Time) (newest *pappsv1.ControllerRevision, collided bool, err error) {
	switch {
	case step.Create != nil:
		return s.create(ctx, owner, step.Create, now)
	case step.Number == 0:
		return step.Use, false, nil
	}
	after := step.Use.DeepCopy()
	after.Revision = step.Number
	if err := Patch(ctx, s.client, after, step.Use); err != nil {
		return nil, false, fmt.Errorf("making ControllerRevision %s the newest: %w", after.Name, err)
	}
	s.Own.Updated(owner.GetUID(), after, now)
	return after, false, nil
}

func (s *RevisionSet) create(ctx context.Context, owner client.Object, rev *pappsv1.ControllerRevision, now time.Time) (*pappsv1.ControllerRevision, bool, error) {
	made := rev.DeepCopy()
	err := s.client.Create(ctx, made)
	if err == nil {
		s.Own.Created(owner.GetUID(), made, now)
		return made, false, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, false, fmt.Errorf("creating ControllerRevision %s: %w", rev.Name, err)
	}
	var there pappsv1.ControllerRevision
	if err := s.live.Get(ctx, client.ObjectKeyFromObject(rev), &there); err != nil {
		return nil, false, fmt.Errorf("reading ControllerRevision %s, which was there already: %w", rev.Name, err)
	}
	ours := metav1.IsControlledBy(&there, owner) || metav1.GetControllerOfNoCopy(&there) == nil && there.DeletionTimestamp == nil
	if !ours || !revision.Holds(&there, rev) {
		return nil, true, nil
	}
	if !metav1.IsControlledBy(&there, owner) {
		adopted := there.DeepCopy()
		adopted.OwnerReferences = append(adopted.OwnerReferences, rev.OwnerReferences...)
		if err := stillThere(ctx, s.live, owner); err != nil {
			return nil, false, err
		}
		if err := Patch(ctx, s.client, adopted, &there); err != nil {
			return nil, false, fmt.Errorf("adopting ControllerRevision %s: %w", rev.Name, err)
		}
		there = *adopted
	}
	s.Own.Created(owner.GetUID(), &there, now)
	if there.Revision >= rev.Revision {
		return &there, false, nil
	}
	return s.Ensure(ctx, owner, revision.Step{Use: &there, Number: rev.Revision}, now)
}

// Delete deletes revisions, each only as it was seen, so that one that became the newest again meanwhile stays.
func (s *RevisionSet) Delete(ctx context.Context, owner types.UID, revisions []*pappsv1.ControllerRevision, now time.Time) error {
	for _, rev := range revisions {
		err := s.client.Delete(ctx, rev.DeepCopy(), client.Preconditions{UID: &rev.UID, ResourceVersion: &rev.ResourceVersion})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting ControllerRevision %s: %w", rev.Name, err)
		}
		s.Own.Deleted(owner, rev, now)
	}
	return nil
}
