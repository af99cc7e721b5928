// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/test/env"
)

// faults makes every write of every object go wrong in three ways before it goes well: it fails, it is carried out but the answer
// gets lost, it meets a conflict.
type faults struct {
	mu       sync.Mutex
	attempts map[string]int
	struck   map[string]int
}

func newFaults() *faults {
	return &faults{attempts: map[string]int{}, struck: map[string]int{}}
}

func (f *faults) strike(c client.Client, verb string, obj client.Object, write func() error) error {
	key := fmt.Sprintf("%s %T %s/%s", verb, obj, obj.GetNamespace(), obj.GetName())
	f.mu.Lock()
	n := f.attempts[key]
	f.attempts[key]++
	f.struck[fmt.Sprintf("%s %T", verb, obj)]++
	f.mu.Unlock()
	switch n {
	case 0:
		return apierrors.NewInternalError(errors.New("injected failure"))
	case 1:
		if err := write(); err != nil {
			return err
		}
		return apierrors.NewTimeoutError("injected timeout after the write", 0)
	case 2:
		return apierrors.NewConflict(schema.GroupResource{Resource: "injected"}, obj.GetName(), errors.New("injected conflict"))
	}
	return write()
}

// wrap lays the faults over a client.
func (f *faults) wrap(c client.Client) client.Client {
	return interceptor.NewClient(watchless{c}, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return f.strike(c, "create", obj, func() error { return c.Create(ctx, obj, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return f.strike(c, "delete", obj, func() error { return c.Delete(ctx, obj, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return f.strike(c, "patch", obj, func() error { return c.Patch(ctx, obj, patch, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return f.strike(c, "update "+sub, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	})
}

// watchless is a client that the loops never ask to watch: their watches go through the cache.
type watchless struct{ client.Client }

func (watchless) Watch(context.Context, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
	return nil, errors.New("the loops watch through their cache")
}

// TestFaults: with every write failing, timing out after it was carried out, and meeting a conflict, a Deployment is created, rolled
// out and scaled within its bounds, and no pod is made twice.
func TestFaults(t *testing.T) {
	f := newFaults()
	w := newWorld(t, options{nodes: 2, wrap: f.wrap})
	census := w.census()
	d := w.deployment("web", 4)
	w.ready(d)
	if n := len(w.pods("web")); n != 4 {
		t.Fatalf("%d pods, want 4", n)
	}
	if n := census.count(); n != 4 {
		t.Fatalf("%d pods were made for 4", n)
	}
	for _, verb := range []string{"create *v1.Pod", "create *v1.ReplicaSet", "patch *v1.PartialObjectMetadata", "update status *v1.Deployment", "update status *v1.ReplicaSet"} {
		if f.struck[verb] == 0 {
			t.Errorf("no fault struck %q; struck were %v", verb, f.struck)
		}
	}
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.eventually("the rollout ends within its bounds", func() error {
		ready, updated, there := 0, 0, w.pods("web")
		for _, p := range there {
			if c, _ := condition.Pod.Get(p.Status.Conditions, string(corev1.PodReady)); c.Status == corev1.ConditionTrue {
				ready++
			}
			if p.Spec.Containers[0].Image == "image:2" {
				updated++
			}
		}
		if len(there) > 5 || ready < 3 {
			t.Fatalf("%d pods, %d ready: out of bounds", len(there), ready)
		}
		if updated != 4 || len(there) != 4 {
			return fmt.Errorf("%d updated of %d", updated, len(there))
		}
		return nil
	})
	w.ready(d)
	if n := census.count(); n != 8 {
		t.Errorf("%d pods were made for 4 and a rollout of 4", n)
	}
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Replicas = new(int32(1)) })
	w.ready(d)
	w.eventually("one pod stays", func() error {
		if n := len(w.pods("web")); n != 1 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
}

// TestNewLeader: another manager takes over in the middle of a rollout, knowing nothing of what the first one wrote last.
func TestNewLeader(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	census := w.census()
	d := w.deployment("web", 20)
	w.restart()
	w.ready(d)
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.restart()
	w.ready(d)
	w.onlyImage("web", "image:2")
	if n := census.count(); n != 40 {
		t.Errorf("%d pods were made for 20 and a rollout of 20", n)
	}
}

// census counts the pods of a namespace that were ever made.
type census struct {
	mu  sync.Mutex
	uid map[types.UID]bool
}

func (c *census) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.uid)
}

func (w *world) census() *census {
	w.Helper()
	c, err := client.NewWithWatch(env.Start(w.T).Config, client.Options{Scheme: scheme})
	w.must(err)
	events, err := c.Watch(w.ctx, &pcorev1.PodList{}, client.InNamespace(w.namespace))
	w.must(err)
	w.Cleanup(events.Stop)
	out := &census{uid: map[types.UID]bool{}}
	go func() {
		for e := range events.ResultChan() {
			if pod, ok := e.Object.(*pcorev1.Pod); ok {
				out.mu.Lock()
				out.uid[pod.UID] = true
				out.mu.Unlock()
			}
		}
	}()
	return out
}
