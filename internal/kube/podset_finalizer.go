// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// ErrMoved says that the finalizers of pods aren't where the cache has them, and that nothing else is wrong: the next look will do better.
var ErrMoved = errors.New("finalizers of pods have changed; the cache will show them soon")

// Unfinalize takes one finalizer from pods, several at a time. It returns those that are without it now, the ones that are gone
// included, and the failures without repetition, or ErrMoved. The patch goes by the finalizer's place in the list rather than by the
// pod's resource version, since a pod's status changes often just when it ends; exactly asks for the resource version all the same,
// for a decision that a change of the pod would have changed.
func Unfinalize(ctx context.Context, c client.Client, finalizer string, pods []*pcorev1.Pod, exactly bool) ([]*pcorev1.Pod, error) {
	var (
		mu    sync.Mutex
		free  []*pcorev1.Pod
		moved bool
	)
	_, err := each(pods, func(pod *pcorev1.Pod) (bool, error) {
		err := unfinalize(ctx, c, finalizer, pod, exactly)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, ErrMoved):
			moved = true
			return false, nil
		case err != nil:
			return false, fmt.Errorf("taking the finalizer %s from pod %s: %w", finalizer, pod.Name, err)
		}
		free = append(free, pod)
		return true, nil
	})
	if err == nil && moved {
		err = ErrMoved
	}
	return free, err
}

func unfinalize(ctx context.Context, c client.Client, finalizer string, pod *pcorev1.Pod, exactly bool) error {
	at := slices.Index(pod.Finalizers, finalizer)
	if at < 0 {
		return nil
	}
	place := fmt.Sprintf("/metadata/finalizers/%d", at)
	patch := []map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": pod.UID},
		{"op": "test", "path": place, "value": finalizer},
		{"op": "remove", "path": place},
	}
	if exactly {
		patch[0] = map[string]any{"op": "test", "path": "/metadata/resourceVersion", "value": pod.ResourceVersion}
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	// The answer is decoded into the object given, so it must share nothing with the cache.
	target := &pcorev1.Pod{}
	target.Namespace, target.Name = pod.Namespace, pod.Name
	err = client.IgnoreNotFound(c.Patch(ctx, target, client.RawPatch(types.JSONPatchType, body)))
	if apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		return ErrMoved
	}
	return err
}
