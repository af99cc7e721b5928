// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/kube"
)

// tally counts the loops' writes.
type tally struct {
	mu    sync.Mutex
	count map[string]int
}

func (y *tally) add(verb string, obj client.Object) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.count[fmt.Sprintf("%s %T", verb, obj)]++
}

func (y *tally) get(what string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.count[what]
}

func (y *tally) wrap(c client.Client) client.Client {
	return interceptor.NewClient(watchless{c}, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			y.add("create", obj)
			return c.Create(ctx, obj, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			y.add("delete", obj)
			return c.Delete(ctx, obj, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			y.add("patch", obj)
			return c.Patch(ctx, obj, patch, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			y.add("update "+sub, obj)
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	})
}

// TestWriteBudget: the loops write once for a pod, its creation on a node, and a handful of times for the rest (docs/adr/0060). PINNACE_PODS and PINNACE_NODES make it larger; it then tells the rate.
func TestWriteBudget(t *testing.T) {
	pods, nodes := fromEnv("PINNACE_PODS", 30), fromEnv("PINNACE_NODES", 10)
	y := &tally{count: map[string]int{}}
	w := newWorld(t, options{nodes: nodes, wrap: y.wrap})
	began := time.Now()
	d := w.deployment("web", int32(pods))
	w.ready(d)
	took := time.Since(began)
	t.Logf("%d pods on %d nodes ready after %s: %.0f pods/s; writes %v", pods, nodes, took.Round(time.Millisecond), float64(pods)/took.Seconds(), y.count)
	if n := y.get("create *v1.Pod"); n != pods {
		t.Errorf("%d creations for %d pods", n, pods)
	}
	if n := y.get("patch *v1.PartialObjectMetadata"); n != 0 {
		t.Errorf("%d bindings of pods that had room when they were made", n)
	}
	if n := y.get("update status *v1.Pod"); n != 0 {
		t.Errorf("%d status writes for pods that were placed at once", n)
	}
	// At first, at the end, and one for each window between.
	for what, window := range map[string]time.Duration{"update status *v1.ReplicaSet": 300 * time.Millisecond, "update status *v1.Deployment": kube.StatusWindow} {
		if n, most := y.get(what), 5+int(took/window); n > most {
			t.Errorf("%d times %s in %s, at most %d are in the budget", n, what, took, most)
		}
	}
	if os.Getenv("PINNACE_PODS") == "" {
		return
	}
	began = time.Now()
	w.change(d, func(d *pappsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
	w.ready(d)
	took = time.Since(began)
	t.Logf("rolled out after %s: %.0f pods/s; writes %v", took.Round(time.Millisecond), float64(pods)/took.Seconds(), y.count)
}

func fromEnv(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestReplicationController: it keeps its number of pods.
func TestReplicationController(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	labels := map[string]string{"app": "old-style"}
	rc := &pcorev1.ReplicationController{}
	rc.Namespace, rc.Name = w.namespace, "old-style"
	rc.Spec.Replicas, rc.Spec.Selector = new(int32(3)), labels
	tmpl := template(labels, "image:1")
	rc.Spec.Template = &tmpl
	w.must(w.Create(w.ctx, rc))
	await := func(want int32) {
		w.eventually(fmt.Sprintf("%d pods are available", want), func() error {
			w.must(w.Get(w.ctx, client.ObjectKeyFromObject(rc), rc))
			c, _ := condition.ReplicationController.Get(rc.Status.Conditions, pcorev1.ConditionReady)
			if c.Status != corev1.ConditionTrue || rc.Status.AvailableReplicas != want || rc.Status.ObservedGeneration != rc.Generation {
				return fmt.Errorf("status %+v", rc.Status)
			}
			return nil
		})
	}
	await(3)
	rc.Spec.Replicas = new(int32(1))
	w.must(w.Update(w.ctx, rc))
	await(1)
}
