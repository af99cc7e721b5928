// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	fakeclient "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

type fakeRuntime struct {
	err            error
	network, ready bool
}

func (f *fakeRuntime) Version(context.Context) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "2.4"}, f.err
}

func (f *fakeRuntime) Status(context.Context) (*runtimeapi.RuntimeStatus, error) {
	return &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: f.ready}, {Type: runtimeapi.NetworkReady, Status: f.network, Message: "cni plugin not initialized"},
	}}, f.err
}

type rig struct {
	t       *testing.T
	client  client.Client
	r       *Reconciler
	runtime *fakeRuntime
	now     time.Time
	writes  int
	cidrs   []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, pcorev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	g := &rig{t: t, runtime: &fakeRuntime{ready: true}, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	g.client = fakeclient.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&pcorev1.Node{}).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			g.writes++
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	}).Build()
	g.r = NewReconciler(g.client, g.client, Options{Now: func() time.Time { return g.now }})
	err := g.r.AddNode(Node{
		Name: "node-1", Runtime: g.runtime,
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
		Capacity:  corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi")},
		Reserved:  corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")},
		Info:      corev1.NodeSystemInfo{Architecture: "amd64", OperatingSystem: "linux", KubeletVersion: "v0.1.0"},
		OnPodCIDRs: func(_ context.Context, cidrs []string) error {
			g.cidrs = cidrs
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *rig) look() *pcorev1.Node {
	g.t.Helper()
	if _, err := g.r.Reconcile(g.t.Context(), request("node-1")); err != nil {
		g.t.Fatal(err)
	}
	node := &pcorev1.Node{}
	if err := g.client.Get(g.t.Context(), types.NamespacedName{Name: "node-1"}, node); err != nil {
		g.t.Fatal(err)
	}
	return node
}

func TestNodeIsRegisteredAndBecomesReady(t *testing.T) {
	g := newRig(t)
	node := g.look()
	if node.Labels[corev1.LabelHostname] != "node-1" || node.Labels[corev1.LabelArchStable] != "amd64" || node.Labels[corev1.LabelOSStable] != "linux" {
		t.Errorf("labels: %v", node.Labels)
	}
	node = g.look()
	if node.Status.Columns["status"] != "NotReady" || node.Status.Columns["roles"] != "<none>" {
		t.Errorf("without a network: %v", node.Status.Columns)
	}
	if cpu := node.Status.Allocatable[corev1.ResourceCPU]; cpu.String() != "3500m" {
		t.Errorf("allocatable cpu is %s", cpu.String())
	}
	node.Spec.PodCIDRs = []string{"10.244.1.0/24"}
	node.Labels["node-role.kubernetes.io/worker"] = ""
	if err := g.client.Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	g.runtime.network = true
	node = g.look()
	if diff := cmp.Diff(pcorev1.Columns{"status": "Ready", "roles": "worker"}, node.Status.Columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if len(g.cidrs) != 1 || node.Status.NodeInfo.ContainerRuntimeVersion != "containerd://2.4" || len(node.Status.Conditions) != 5 {
		t.Errorf("networks %v, status %+v", g.cidrs, node.Status)
	}
}

func TestQuietNodeIsWrittenSeldom(t *testing.T) {
	g := newRig(t)
	g.runtime.network = true
	g.look()
	g.look()
	writes := g.writes
	for range 29 {
		g.now = g.now.Add(10 * time.Second)
		g.look()
	}
	if g.writes != writes {
		t.Errorf("%d writes in 290 s of a quiet node", g.writes-writes)
	}
	g.now = g.now.Add(10 * time.Second)
	if g.look(); g.writes != writes+1 {
		t.Errorf("%d writes after 5 min, want 1", g.writes-writes)
	}
}

func TestSilentRuntimeMakesNotReady(t *testing.T) {
	g := newRig(t)
	g.runtime.network = true
	g.look()
	g.look()
	g.runtime.err = errors.New("connection refused")
	if node := g.look(); node.Status.Columns["status"] != "NotReady" {
		t.Errorf("columns: %v", node.Status.Columns)
	}
	if node := g.look(); node.Status.NodeInfo.ContainerRuntimeVersion != "containerd://2.4" {
		t.Error("the runtime's version is forgotten while it is silent")
	}
}

func TestLeaseIsTakenAndRenewed(t *testing.T) {
	g := newRig(t)
	renew := func() *coordinationv1.Lease {
		t.Helper()
		if _, err := g.r.renew(t.Context(), request("node-1")); err != nil {
			t.Fatal(err)
		}
		lease := &coordinationv1.Lease{}
		if err := g.client.Get(t.Context(), types.NamespacedName{Namespace: LeaseNamespace, Name: "node-1"}, lease); err != nil {
			t.Fatal(err)
		}
		return lease
	}
	first := renew()
	g.now = g.now.Add(10 * time.Second)
	second := renew()
	if !second.Spec.RenewTime.After(first.Spec.RenewTime.Time) || *second.Spec.HolderIdentity != "node-1" || *second.Spec.LeaseDurationSeconds != 40 {
		t.Errorf("lease: %+v", second.Spec)
	}
	// A new agent takes over the lease that is there.
	again := NewReconciler(g.client, g.client, Options{Now: func() time.Time { return g.now.Add(time.Minute) }})
	if err := again.AddNode(Node{Name: "node-1", Runtime: g.runtime}); err != nil {
		t.Fatal(err)
	}
	g.r = again
	if third := renew(); !third.Spec.RenewTime.After(second.Spec.RenewTime.Time) {
		t.Errorf("lease: %+v", third.Spec)
	}
}
