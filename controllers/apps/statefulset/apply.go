// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// apply carries the plan out, stage by stage, and lays what came of it over the scope's pods and claims. The first failure ends it.
func (r *Reconciler) apply(ctx context.Context, s *scope, p plan) error {
	var err error
	for i := range p.stages {
		if err = r.applyStage(ctx, s, &p.stages[i]); err != nil {
			break
		}
	}
	if len(p.stages) > 0 {
		s.pods = r.pods.Own.Relay(s.set.UID, s.pods)
		var claims []*pcorev1.PersistentVolumeClaim
		for _, claim := range s.claims {
			claims = append(claims, claim)
		}
		for _, claim := range r.claims.Relay(s.set.UID, claims) {
			s.claims[claim.Name] = claim
		}
	}
	return err
}

// applyStage does the tasks one after the other, or, where their order doesn't matter, in batches that grow from one to kube.Writers, so
// that a quota that refuses all is asked once.
func (r *Reconciler) applyStage(ctx context.Context, s *scope, st *stage) error {
	tasks := st.tasks
	for batch := 1; len(tasks) > 0; batch = min(2*batch, kube.Writers) {
		if !st.parallel {
			batch = 1
		}
		n := min(batch, len(tasks))
		failures := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { failures[i] = r.do(ctx, s, &tasks[i]) })
		}
		wg.Wait()
		if err := firstOf(failures); err != nil {
			return err
		}
		tasks = tasks[n:]
	}
	return nil
}

// firstOf joins failures without repetition, conflicts only when there is nothing else.
func firstOf(failures []error) error {
	var all, conflicts []error
	said := map[string]bool{}
	for _, err := range failures {
		switch {
		case err == nil || said[err.Error()]:
		case apierrors.IsConflict(err):
			conflicts = append(conflicts, err)
		default:
			said[err.Error()] = true
			all = append(all, err)
		}
	}
	if len(all) == 0 && len(conflicts) > 0 {
		return conflicts[0]
	}
	return errors.Join(all...)
}

// do carries one task out: claims first, so that no pod is there before what it mounts.
func (r *Reconciler) do(ctx context.Context, s *scope, t *task) error {
	for _, claim := range t.claims.create {
		if err := r.createClaim(ctx, s, claim); err != nil {
			return err
		}
	}
	for _, c := range t.claims.update {
		if err := kube.Patch(ctx, r.client, c.after, c.before); err != nil {
			return &failure{reasonFailedUpdate, fmt.Errorf("updating claim %s: %w", c.before.Name, err)}
		}
		r.claims.Updated(s.set.UID, c.after, s.now)
	}
	switch {
	case t.create != nil:
		return r.createPod(ctx, s, t.create)
	case t.after != nil:
		if err := kube.Patch(ctx, r.client, t.after, t.before); err != nil {
			return &failure{reasonFailedUpdate, fmt.Errorf("giving pod %s its identity back: %w", t.before.Name, err)}
		}
		r.pods.Own.Updated(s.set.UID, t.after, s.now)
	case t.remove != nil:
		return r.removePod(ctx, s, t.remove)
	}
	return nil
}

// removePod deletes a pod, if it is still the one that was looked at. A conflict is looked at again rather than believed: the pod that takes
// its place has the same name, and could be the one that is missed.
func (r *Reconciler) removePod(ctx context.Context, s *scope, pod *pcorev1.Pod) error {
	err := r.client.Delete(ctx, kube.CopyPod(pod), client.Preconditions{UID: &pod.UID})
	if client.IgnoreNotFound(err) != nil {
		return &failure{reasonFailedDelete, fmt.Errorf("deleting pod %s: %w", pod.Name, err)}
	}
	r.pods.Own.Deleted(s.set.UID, pod, s.now)
	return nil
}

// createClaim makes a claim. One that is there already, whoever made it, serves: upstream takes it, too.
func (r *Reconciler) createClaim(ctx context.Context, s *scope, claim *pcorev1.PersistentVolumeClaim) error {
	name := client.ObjectKeyFromObject(claim)
	err := r.client.Create(ctx, claim)
	if apierrors.IsAlreadyExists(err) {
		var there pcorev1.PersistentVolumeClaim
		if err := r.live.Get(ctx, name, &there); err != nil {
			return fmt.Errorf("reading claim %s, which was there already: %w", name.Name, err)
		}
		claim, err = &there, nil
	}
	if err != nil {
		return &failure{reasonFailedCreate, fmt.Errorf("creating claim %s: %w", name.Name, err)}
	}
	r.claims.Created(s.set.UID, claim, s.now)
	return nil
}

// errForeign is the failure of a creation whose name somebody else's pod holds.
var errForeign = errors.New("another pod has the name already and belongs to somebody else; delete or rename it")

// createPod makes a pod. A pod of that name that is there already is the set's own, which the cache doesn't show yet, or in the way.
func (r *Reconciler) createPod(ctx context.Context, s *scope, pod *pcorev1.Pod) error {
	name := client.ObjectKeyFromObject(pod)
	err := r.client.Create(ctx, pod)
	switch {
	case err == nil:
	case apierrors.IsAlreadyExists(err):
		var there pcorev1.Pod
		if err := r.live.Get(ctx, name, &there); err != nil {
			return fmt.Errorf("reading pod %s, which was there already: %w", name.Name, err)
		}
		if !metav1.IsControlledBy(&there, s.set) {
			return &failure{reasonFailedCreate, fmt.Errorf("creating pod %s: %w", name.Name, errForeign)}
		}
		pod = &there
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	default:
		return &failure{reasonFailedCreate, fmt.Errorf("creating pod %s: %w", name.Name, err)}
	}
	r.pods.Own.Created(s.set.UID, pod, s.now)
	return nil
}
