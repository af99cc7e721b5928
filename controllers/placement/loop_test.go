// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// recorder is a client that takes the loop's writes down, and fails those that fail says.
type recorder struct {
	client.Client
	mu       sync.Mutex
	bound    map[string]string
	statuses map[string]pcorev1.PodStatus
	fail     func(name string) error
	tries    map[string]int
}

func newRecorder() *recorder {
	return &recorder{bound: map[string]string{}, statuses: map[string]pcorev1.PodStatus{}, tries: map[string]int{}}
}

func (r *recorder) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.PatchOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries[obj.GetName()]++
	if r.fail != nil {
		if err := r.fail(obj.GetName()); err != nil {
			return err
		}
	}
	raw, err := patch.Data(obj)
	if err != nil {
		return err
	}
	var ops []operation
	if err := json.Unmarshal(raw, &ops); err != nil {
		return err
	}
	for _, op := range ops {
		if node, ok := op.Value.(string); ok && op.Path == "/spec/nodeName" {
			r.bound[obj.GetName()] = node
			return nil
		}
	}
	r.bound[obj.GetName()] = "(finalizer only)"
	return nil
}

func (r *recorder) Status() client.SubResourceWriter { return statusRecorder{recorder: r} }

type statusRecorder struct {
	client.SubResourceWriter
	*recorder
}

func (s statusRecorder) Update(_ context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	pod, ok := obj.(*pcorev1.Pod)
	if !ok {
		return errors.New("not a pod")
	}
	s.statuses[pod.Name] = pod.Status
	return nil
}

func (s statusRecorder) Create(context.Context, client.Object, client.Object, ...client.SubResourceCreateOption) error {
	return errors.New("unexpected")
}

func (s statusRecorder) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return errors.New("unexpected")
}

// await waits until the recorder satisfies a condition.
func (r *recorder) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		r.mu.Lock()
		done := ok()
		state := r.bound
		r.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s; bound are %v", what, state)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func run(t *testing.T, rec *recorder) *Reconciler {
	t.Helper()
	r := NewReconciler(rec)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func node(name, cpu string) *pcorev1.Node {
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("110")}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return n
}

func pod(name, cpu string) *pcorev1.Pod {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "test", UID: types.UID(name), Generation: 1, ResourceVersion: "1"}}
	p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}
	return p
}

func TestUrgentPodsFirst(t *testing.T) {
	rec := newRecorder()
	r := NewReconciler(rec)
	r.setNode(node("a", "1"))
	urgent := pod("urgent", "1")
	urgent.Spec.Priority = new(int32(10))
	r.setPod(pod("first", "1"))
	r.setPod(urgent)
	jobs := r.cycle()
	if len(jobs) != 2 || jobs[0].pod.Name != "urgent" || jobs[0].what != bind || jobs[1].what != explain {
		t.Fatalf("jobs %+v", jobs)
	}
}

// TestRoomIsFreed: a pod that waits for room is placed when another one ends, and its condition isn't written again and again.
func TestRoomIsFreed(t *testing.T) {
	rec := newRecorder()
	r := run(t, rec)
	r.setNode(node("a", "1"))
	holder := pod("holder", "1")
	holder.Spec.NodeName, holder.Finalizers = "a", []string{NodeFinalizer}
	r.setPod(holder)
	r.setPod(pod("waiting", "1"))
	rec.await(t, "the waiting pod says why", func() bool {
		c := rec.statuses["waiting"].Conditions
		return len(c) == 1 && c[0].Message == "0/1 nodes are available: 1 Insufficient cpu."
	})
	r.removePod(holder)
	rec.await(t, "the waiting pod is placed", func() bool { return rec.bound["waiting"] == "a" })
}

// TestFailedBindings: a conflict, an error and a timeout free the room, and the pod is placed in the end.
func TestFailedBindings(t *testing.T) {
	rec := newRecorder()
	left := []error{
		apierrors.NewConflict(schema.GroupResource{}, "p", errors.New("changed")),
		apierrors.NewInternalError(errors.New("broken")), apierrors.NewTimeoutError("slow", 0),
	}
	rec.fail = func(string) error {
		if len(left) == 0 {
			return nil
		}
		err := left[0]
		left = left[1:]
		return err
	}
	r := run(t, rec)
	r.setNode(node("a", "1"))
	r.setPod(pod("p", "1"))
	rec.await(t, "the pod is placed", func() bool { return rec.bound["p"] == "a" && rec.tries["p"] == 4 })
}

// TestDeletedWhileBinding: the room of a pod that ends before its binding is written is free again.
func TestDeletedWhileBinding(t *testing.T) {
	rec := newRecorder()
	rec.fail = func(name string) error {
		if name == "gone" {
			return apierrors.NewNotFound(schema.GroupResource{}, name)
		}
		return nil
	}
	r := run(t, rec)
	r.setNode(node("a", "1"))
	gone := pod("gone", "1")
	r.setPod(gone)
	rec.await(t, "the binding is tried", func() bool { return rec.tries["gone"] == 1 })
	r.removePod(gone)
	r.setPod(pod("next", "1"))
	rec.await(t, "the next pod is placed", func() bool { return rec.bound["next"] == "a" })
}

// TestWhoIsPlaced: pods of other schedulers are left alone, gated ones wait, and those bound by hand only get the finalizer.
func TestWhoIsPlaced(t *testing.T) {
	rec := newRecorder()
	r := run(t, rec)
	other := pod("other", "10m")
	other.Spec.SchedulerName = "somebody-else"
	gated := pod("gated", "10m")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}}
	byHand := pod("by-hand", "10m")
	byHand.Spec.NodeName = "a"
	named := pod("named", "10m")
	named.Spec.SchedulerName = defaultName
	r.setNode(node("a", "1"))
	for _, p := range []*pcorev1.Pod{other, gated, byHand, named} {
		r.setPod(p)
	}
	rec.await(t, "the three are written", func() bool {
		return rec.bound["named"] == "a" && rec.bound["by-hand"] == "(finalizer only)" && rec.statuses["gated"].Columns["status"] == gatedReason
	})
	rec.await(t, "the others are left alone", func() bool { return rec.tries["other"]+rec.tries["gated"] == 0 })
	open := gated.DeepCopy()
	open.Spec.SchedulingGates, open.Generation = nil, 2
	r.setPod(open)
	rec.await(t, "the gate opens", func() bool { return rec.bound["gated"] == "a" })
}
