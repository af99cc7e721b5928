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
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// PodDelay is the longest time that a change of a pod waits for others, so that they share one look at their owner; a cache that was behind has caught up by then, too.
const PodDelay = 20 * time.Millisecond

// Writers is the most writes that one owner's batch has under way at a time.
const Writers = 32

// PodSet creates and deletes the pods of owners, and remembers what it did until the cache shows it. It serves every
// controller that owns equal pods. All methods may be called concurrently, for one owner by one caller at a time.
type PodSet struct {
	client client.Client
	live   client.Reader
	// Own holds the writes that the cache may not show yet.
	Own *Overlay[*pcorev1.Pod]

	mu sync.Mutex
	// foreign are the names that were found to be held by somebody else's pods.
	foreign map[types.UID]map[string]bool
	// accepted are the owners whose last creations all succeeded.
	accepted map[types.UID]bool
	// listed is how many pods each owner's last List returned.
	listed map[types.UID]int
}

// NewPodSet makes a PodSet. live reads past the cache.
func NewPodSet(c client.Client, live client.Reader) *PodSet {
	return &PodSet{
		client: c, live: live, Own: NewOverlay(CopyPod),
		foreign: map[types.UID]map[string]bool{}, accepted: map[types.UID]bool{}, listed: map[types.UID]int{},
	}
}

// CopyPod copies a pod's top level and its metadata, and shares the rest: enough to change metadata.
func CopyPod(pod *pcorev1.Pod) *pcorev1.Pod {
	out := *pod
	pod.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// List returns the pods that the owner controls and the orphans of its namespace, from the cache, with the controller's own
// writes laid over. The pods must not be changed.
func (s *PodSet) List(ctx context.Context, owner client.Object, now time.Time) ([]*pcorev1.Pod, error) {
	var pods []*pcorev1.Pod
	for _, key := range []string{string(owner.GetUID()), Orphan} {
		var list pcorev1.PodList
		if err := s.client.List(ctx, &list, client.InNamespace(owner.GetNamespace()), client.MatchingFields{ByController: key}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing pods: %w", err)
		}
		for i := range list.Items {
			pods = append(pods, &list.Items[i])
		}
	}
	s.mu.Lock()
	s.listed[owner.GetUID()] = len(pods)
	s.mu.Unlock()
	return s.Own.Apply(owner.GetUID(), pods, now), nil
}

// Delay is how long a change of a pod may wait for others, so that they share one look at the owner: the longer, the more pods a look goes
// through, and at most PodDelay.
func (s *PodSet) Delay(owner types.UID) time.Duration {
	const perPod = 200 * time.Microsecond
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(PodDelay, time.Duration(s.listed[owner])*perPod)
}

// Foreign returns the names that the owner can't use because other pods hold them.
func (s *PodSet) Foreign(owner types.UID) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.foreign[owner]
}

// Forget drops what is remembered about an owner that is gone.
func (s *PodSet) Forget(owner types.UID) {
	s.Own.Forget(owner)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.foreign, owner)
	delete(s.accepted, owner)
	delete(s.listed, owner)
}

// Create makes the pods of those names from the template. Batches grow from one to Writers and stop after the first
// failure, so that a quota that refuses all is asked once rather than a thousand times; an owner whose last pods were all accepted goes on at full width. It returns the number of
// pods that are there now, and the failures without repetition. Fewer pods than names without a failure means that some
// names turned out to be held by others: plan again, with Foreign. A namespace that is being deleted is no failure.
func (s *PodSet) Create(ctx context.Context, owner client.Object, gvk schema.GroupVersionKind, template *pcorev1.PodTemplateSpec, names []string) (int, error) {
	return s.CreateEach(ctx, owner, gvk, names, func(string) *pcorev1.PodTemplateSpec { return template })
}

// CreateEach is Create for pods that differ: template returns the one of the pod of that name. It is called from several goroutines at a
// time, and what it returns is copied.
func (s *PodSet) CreateEach(ctx context.Context, owner client.Object, gvk schema.GroupVersionKind, names []string,
	template func(name string) *pcorev1.PodTemplateSpec,
) (int, error) {
	ref := *metav1.NewControllerRef(owner, gvk)
	done := 0
	for batch := s.firstBatch(owner.GetUID()); len(names) > 0; batch = min(2*batch, Writers) {
		n := min(batch, len(names))
		if batch == Writers {
			n = len(names) // the slow start is over; the writers share out the rest
		}
		made, err := each(names[:n], func(name string) (bool, error) {
			return s.createOne(ctx, owner, ref, template(name), name)
		})
		done += made
		s.accept(owner.GetUID(), err == nil)
		if err != nil {
			return done, err
		}
		names = names[n:]
	}
	return done, nil
}

// firstBatch is one for an owner whose pods may be refused, and all at once for one whose last pods were not.
func (s *PodSet) firstBatch(owner types.UID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accepted[owner] {
		return Writers
	}
	return 1
}

func (s *PodSet) accept(owner types.UID, accepted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if accepted {
		s.accepted[owner] = true
	} else {
		delete(s.accepted, owner)
	}
}

func (s *PodSet) createOne(ctx context.Context, owner client.Object, ref metav1.OwnerReference, template *pcorev1.PodTemplateSpec, name string) (bool, error) {
	pod := makePod(owner.GetNamespace(), name, ref, template)
	err := s.client.Create(ctx, pod)
	switch {
	case err == nil:
		s.Own.Created(owner.GetUID(), pod, time.Now())
		return true, nil
	case apierrors.IsAlreadyExists(err):
		return s.recognise(ctx, owner.GetUID(), pod)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return true, nil
	}
	return false, fmt.Errorf("creating a pod: %w", err)
}

// recognise finds out who holds a name that was to be used: the owner's own pod, which the cache doesn't show yet, is as good as a
// new one; anybody else's makes the name unusable.
func (s *PodSet) recognise(ctx context.Context, owner types.UID, wanted *pcorev1.Pod) (bool, error) {
	var pod pcorev1.Pod
	if err := s.live.Get(ctx, client.ObjectKeyFromObject(wanted), &pod); err != nil {
		return false, fmt.Errorf("reading pod %s, which was there already: %w", wanted.Name, err)
	}
	if ref := metav1.GetControllerOfNoCopy(&pod); ref != nil && ref.UID == owner {
		s.Own.Created(owner, &pod, time.Now())
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.foreign[owner] == nil {
		s.foreign[owner] = map[string]bool{}
	}
	names := make(map[string]bool, len(s.foreign[owner])+1) // copied, because Foreign hands the map out
	for name := range s.foreign[owner] {
		names[name] = true
	}
	names[wanted.Name] = true
	s.foreign[owner] = names
	return false, nil
}

func makePod(namespace, name string, ref metav1.OwnerReference, template *pcorev1.PodTemplateSpec) *pcorev1.Pod {
	pod := &pcorev1.Pod{Spec: *template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = namespace, name
	pod.OwnerReferences = []metav1.OwnerReference{ref}
	pod.Labels = cloneMap(template.Labels)
	pod.Annotations = cloneMap(template.Annotations)
	pod.Finalizers = append([]string(nil), template.Finalizers...)
	return pod
}

func cloneMap(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

// Delete deletes the pods, each only if it is still the one that was looked at. It returns the failures without
// repetition. A pod that is gone already is no failure.
func (s *PodSet) Delete(ctx context.Context, owner types.UID, pods []*pcorev1.Pod) error {
	_, err := each(pods, func(pod *pcorev1.Pod) (bool, error) {
		uid := pod.UID
		err := s.client.Delete(ctx, CopyPod(pod), client.Preconditions{UID: &uid})
		if apierrors.IsConflict(err) {
			// Usually another pod has the name by now, and this one is gone.
			var there pcorev1.Pod
			if getErr := s.live.Get(ctx, client.ObjectKeyFromObject(pod), &there); apierrors.IsNotFound(getErr) || getErr == nil && there.UID != uid {
				err = nil
			}
		}
		if client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("deleting pod %s: %w", pod.Name, err)
		}
		s.Own.Deleted(owner, pod, time.Now())
		return true, nil
	})
	return err
}

// each calls do for every item with at most Writers at a time; it returns how many succeeded and the different failures.
func each[I any](items []I, do func(I) (bool, error)) (int, error) {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		done     int
		failures []error
		said     = map[string]bool{}
		work     = make(chan I)
	)
	for range min(Writers, len(items)) {
		wg.Go(func() {
			for item := range work {
				ok, err := do(item)
				mu.Lock()
				if ok {
					done++
				}
				if err != nil && !said[err.Error()] {
					said[err.Error()] = true
					failures = append(failures, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, item := range items {
		work <- item
	}
	close(work)
	wg.Wait()
	return done, errors.Join(failures...)
}
