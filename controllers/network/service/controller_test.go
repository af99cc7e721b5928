// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
)

// rig steps a Reconciler over an API server in memory, and counts its writes.
type rig struct {
	t      *testing.T
	client client.WithWatch
	r      *Reconciler
	events *events.FakeRecorder
	writes map[string]int
}

func newRig(t *testing.T, objects ...client.Object) *rig {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := pcorev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	rig := &rig{t: t, writes: map[string]int{}, events: events.NewFakeRecorder(10)}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&pcorev1.Service{}).
		WithIndex(&pcorev1.Service{}, byClusterIP, func(o client.Object) []string { return clusterIPs(o.(*pcorev1.Service)) }).
		WithIndex(&pcorev1.Service{}, byNodePort, func(o client.Object) []string { return nodePorts(o.(*pcorev1.Service)) }).
		WithInterceptorFuncs(interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
				rig.writes["spec"]++
				return c.Patch(ctx, obj, patch, opts...)
			},
			SubResourceUpdate: func(ctx context.Context, c client.Client, name string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
				rig.writes[name]++
				return c.SubResource(name).Update(ctx, obj, opts...)
			},
		})
	rig.client = builder.Build()
	rig.restart()
	return rig
}

// restart makes a Reconciler that remembers nothing.
func (r *rig) restart() {
	r.t.Helper()
	reconciler, err := NewReconciler(r.client, r.client, Options{ServiceCIDR: "10.97.0.0/16", Events: r.events})
	if err != nil {
		r.t.Fatal(err)
	}
	r.r = reconciler
}

func (r *rig) reconcile(name string) {
	r.t.Helper()
	if _, err := r.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: name}}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) get(name string) *pcorev1.Service {
	r.t.Helper()
	var s pcorev1.Service
	if err := r.client.Get(context.Background(), types.NamespacedName{Namespace: "shop", Name: name}, &s); err != nil {
		r.t.Fatal(err)
	}
	return &s
}

func named(name string, change ...func(*pcorev1.Service)) *pcorev1.Service {
	return aService(append([]func(*pcorev1.Service){func(s *pcorev1.Service) {
		s.Name, s.UID = name, types.UID("uid-"+name)
		s.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	}}, change...)...)
}

func reasonOf(s *pcorev1.Service, kind string) string {
	c, _ := conditions.Get(s.Status.Conditions, kind)
	return c.Reason
}

func TestTwoWritesForANewService(t *testing.T) {
	r := newRig(t, named("web"))
	for range 3 {
		r.reconcile("web")
	}
	if diff := cmp.Diff(map[string]int{"spec": 1, "status": 1}, r.writes); diff != "" {
		t.Error(diff)
	}
	s := r.get("web")
	if s.Spec.ClusterIP == "" || s.Status.Columns["ports"] != "80/TCP" || reasonOf(s, pcorev1.ConditionReady) != ReasonServing || s.Status.ObservedGeneration != s.Generation {
		t.Errorf("%+v", s)
	}
}

func TestTheUsersChoiceIsKeptAndConflictsAreTold(t *testing.T) {
	choose := func(s *pcorev1.Service) { s.Spec.ClusterIP = "10.97.0.10" }
	later := func(s *pcorev1.Service) { s.CreationTimestamp = metav1.NewTime(time.Unix(2000, 0)) }
	r := newRig(t, named("first", choose), named("second", choose, later))
	// The younger one comes first to the queue, and doesn't win for that.
	for range 2 {
		r.reconcile("second")
		r.reconcile("first")
	}
	if got := reasonOf(r.get("first"), pcorev1.ConditionReady); got != ReasonServing {
		t.Errorf("the older service: %s", got)
	}
	second := r.get("second")
	if endpoints.Stalled(second) != endpoints.ReasonIPConflict {
		t.Errorf("the younger service: %+v", second.Status.Conditions)
	}
	if len(r.events.Events) != 1 {
		t.Errorf("%d events", len(r.events.Events))
	}
	// An older service that turns up with the address later doesn't take it away from one that serves.
	oldest := named("oldest", choose, func(s *pcorev1.Service) { s.CreationTimestamp = metav1.NewTime(time.Unix(1, 0)) })
	if err := r.client.Create(context.Background(), oldest); err != nil {
		t.Fatal(err)
	}
	r.reconcile("oldest")
	r.reconcile("first")
	if endpoints.Stalled(r.get("oldest")) != endpoints.ReasonIPConflict || endpoints.Stalled(r.get("first")) != "" {
		t.Error("the address changed hands")
	}
	// Once it is free, who waits gets it.
	if err := r.client.Delete(context.Background(), r.get("first")); err != nil {
		t.Fatal(err)
	}
	r.r.holdings.gone("uid-first")
	if err := r.client.Delete(context.Background(), r.get("oldest")); err != nil {
		t.Fatal(err)
	}
	r.r.holdings.gone("uid-oldest")
	r.reconcile("second")
	if s := r.get("second"); endpoints.Stalled(s) != "" || reasonOf(s, pcorev1.ConditionReady) != ReasonServing {
		t.Errorf("after the other is gone: %+v", s.Status.Conditions)
	}
}

// staleReader is a cache that never shows what was written.
type staleReader struct {
	client.Client
	frozen client.Client
}

func (s staleReader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return s.frozen.Get(ctx, key, obj, opts...)
}

func (s staleReader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return s.frozen.List(ctx, list, opts...)
}

// TestNoAddressTwice: in a range that is nearly full, with a cache that shows no write and a manager that is restarted
// in between, every service still has an address of its own.
func TestNoAddressTwice(t *testing.T) {
	const count = 25
	var objects, frozen []client.Object
	for i := range count {
		objects = append(objects, named(fmt.Sprintf("s%d", i)))
		frozen = append(frozen, named(fmt.Sprintf("s%d", i)))
	}
	r := newRig(t, objects...)
	stale := newRig(t, frozen...)
	restart := func() {
		reconciler, err := NewReconciler(staleReader{r.client, stale.client}, r.client, Options{ServiceCIDR: "10.97.0.0/27"})
		if err != nil {
			t.Fatal(err)
		}
		r.r = reconciler
	}
	restart()
	for i := range count {
		if i%7 == 6 {
			restart()
		}
		r.reconcile(fmt.Sprintf("s%d", i))
	}
	holders := map[string]string{}
	for i := range count {
		s := r.get(fmt.Sprintf("s%d", i))
		if s.Spec.ClusterIP == "" {
			t.Errorf("%s has no address: %+v", s.Name, s.Status.Conditions)
		}
		if other := holders[s.Spec.ClusterIP]; other != "" {
			t.Errorf("%s and %s both have %s", s.Name, other, s.Spec.ClusterIP)
		}
		holders[s.Spec.ClusterIP] = s.Name
	}
}

func TestExhausted(t *testing.T) {
	r := newRig(t, named("a"), named("b"), named("c"))
	reconciler, err := NewReconciler(r.client, r.client, Options{ServiceCIDR: "10.97.0.0/30"})
	if err != nil {
		t.Fatal(err)
	}
	r.r = reconciler
	for _, name := range []string{"a", "b", "c"} {
		r.reconcile(name)
	}
	if endpoints.Stalled(r.get("c")) != ReasonExhausted || r.get("c").Spec.ClusterIP != "" {
		t.Errorf("%+v", r.get("c"))
	}
}

func TestNodePortsDontMeet(t *testing.T) {
	exposed := func(s *pcorev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }
	r := newRig(t, named("a", exposed), named("b", exposed))
	r.reconcile("a")
	taken := r.get("a").Spec.Ports[0].NodePort
	b := r.get("b")
	b.Spec.Ports[0].NodePort = taken
	if err := r.client.Update(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	r.reconcile("b")
	if endpoints.Stalled(r.get("b")) != endpoints.ReasonPortConflict {
		t.Errorf("%+v", r.get("b").Status.Conditions)
	}
	r.reconcile("a")
	if endpoints.Stalled(r.get("a")) != "" {
		t.Error("the first lost its port")
	}
}

func TestBadRange(t *testing.T) {
	for _, cidr := range []string{"", "10.97.0.0", "10.97.0.1/32"} {
		if _, err := NewReconciler(nil, nil, Options{ServiceCIDR: cidr}); err == nil {
			t.Errorf("%q was taken", cidr)
		}
	}
}
