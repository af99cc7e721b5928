// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pod is the same for both sides; only what binds it differs.
func (s *side) pod(name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": s.apiVersion, "kind": "Pod",
		"metadata": map[string]any{"namespace": namespace, "name": name, "labels": map[string]any{"app": "bench"}},
		"spec": map[string]any{
			"nodeName": s.node, "terminationGracePeriodSeconds": int64(1), "automountServiceAccountToken": false, "enableServiceLinks": false,
			"containers": []any{map[string]any{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}},
		},
	}}
	if s.node == agentNode {
		object.SetFinalizers([]string{"pinnace.dev/node"}) // as all have that are made on their node (docs/adr/0060)
	}
	return object
}

func (s *side) list() *unstructured.UnstructuredList {
	return &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": s.apiVersion, "kind": "PodList"}}
}

// make makes pods, all at once, and returns how long each took to be Ready from the moment before the first was made.
func (r *rig) make(s *side, names []string) ([]time.Duration, error) {
	w, err := r.client.Watch(r.ctx, s.list(), client.InNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	defer w.Stop()
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Minute)
	defer cancel()
	began := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- r.create(ctx, s, names) }()
	missing := map[string]bool{}
	for _, name := range names {
		missing[name] = true
	}
	var took []time.Duration
	for len(missing) > 0 {
		select {
		case event, open := <-w.ResultChan():
			if !open {
				return nil, errors.New("the watch of pods broke")
			}
			object, ok := event.Object.(*unstructured.Unstructured)
			if ok && missing[object.GetName()] && ready(object) {
				delete(missing, object.GetName())
				took = append(took, time.Since(began))
			}
		case err := <-failed:
			if err != nil {
				return nil, err
			}
			failed = nil
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %d of %d pods of the %s: %w", len(missing), len(names), s.name, ctx.Err())
		}
	}
	return took, nil
}

// create makes pods with a few writers, as a controller does.
func (r *rig) create(ctx context.Context, s *side, names []string) error {
	const writers = 8
	maker := client.Client(r.client)
	if s.node == agentNode {
		maker = r.controller
	}
	queue := make(chan string, len(names))
	for _, name := range names {
		queue <- name
	}
	close(queue)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for name := range queue {
				if err := maker.Create(ctx, s.pod(name)); err != nil {
					errs[i] = fmt.Errorf("making pod %s: %w", name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// remove deletes all pods of a side and waits until they are gone.
func (r *rig) remove(s *side) error {
	pods := s.list()
	if err := r.client.List(r.ctx, pods, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	for i := range pods.Items {
		if err := r.client.Delete(r.ctx, &pods.Items[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting a pod: %w", err)
		}
	}
	return r.await("the end of the pods", func(ctx context.Context) error {
		if err := r.client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
			return err
		}
		if n := len(pods.Items); n > 0 {
			return fmt.Errorf("%d pods are still there", n)
		}
		return nil
	})
}

// names of n pods.
func (r *rig) names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d-%d", prefix, time.Now().UnixNano(), i)
	}
	return out
}
