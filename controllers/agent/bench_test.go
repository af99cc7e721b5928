// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	goruntime "runtime"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

// podStore is a client that keeps pods in a map, to measure the agent alone.
type podStore struct {
	client.Client
	pods map[types.NamespacedName]*pcorev1.Pod
}

func (s *podStore) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	pod, ok := s.pods[key]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, key.Name)
	}
	*into.(*pcorev1.Pod) = *pod
	return nil
}

func (s *podStore) Status() client.SubResourceWriter { return statusStore{s: s} }

type statusStore struct {
	client.SubResourceWriter
	s *podStore
}

func (w statusStore) Update(_ context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	pod := *obj.(*pcorev1.Pod)
	w.s.pods[client.ObjectKeyFromObject(obj)] = &pod
	return nil
}

// BenchmarkSimulatedPods starts pods on simulated nodes, twenty on each, and reports what a pod that is at rest keeps.
func BenchmarkSimulatedPods(b *testing.B) {
	store := &podStore{pods: map[types.NamespacedName]*pcorev1.Pod{}}
	agent := NewReconciler(store, Options{References: store})
	for i := range b.N/20 + 1 {
		if err := agent.AddNode(Node{Name: fmt.Sprint("node-", i), Runtime: fake.New(fake.Options{}), Simulated: true}); err != nil {
			b.Fatal(err)
		}
	}
	requests := make([]reconcile.Request, b.N)
	for i := range b.N {
		pod := aPod(fmt.Sprint("pod-", i)).Obj()
		pod.Spec.NodeName = fmt.Sprint("node-", i/20)
		requests[i] = reconcile.Request{NamespacedName: client.ObjectKeyFromObject(pod)}
		store.pods[requests[i].NamespacedName] = pod
	}
	before := heap()
	b.ResetTimer()
	for _, request := range requests {
		if _, err := agent.Reconcile(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/float64(b.N), "kept-B/pod")
	goruntime.KeepAlive(agent)
}

func heap() int64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
