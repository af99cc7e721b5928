// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
	"github.com/pinnace-dev/pinnace/internal/endpoints"
	"github.com/pinnace-dev/pinnace/internal/ruleset"
)

// table notes what it is given.
type table struct {
	config  ruleset.Config
	updates []map[string]ruleset.Fragment
	checks  int
	fail    error
}

func (t *table) Config() ruleset.Config { return t.config }

func (t *table) Configure(config ruleset.Config) bool {
	changed := !slices.Equal(config.PodCIDRs, t.config.PodCIDRs)
	t.config = config
	return changed
}

func (t *table) Update(_ context.Context, fragments map[string]ruleset.Fragment) error {
	t.updates = append(t.updates, fragments)
	return t.fail
}

func (t *table) Check(context.Context) (bool, error) {
	t.checks++
	return false, nil
}

func (t *table) owners() []string {
	var owners []string
	for owner, fragment := range t.updates[len(t.updates)-1] {
		if len(fragment.Elements) > 0 {
			owners = append(owners, owner)
		}
	}
	slices.Sort(owners)
	return owners
}

func aService(name, ip, stalled string) *pcorev1.Service {
	s := &pcorev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}}
	if stalled != "" {
		s.Status.Conditions = []metav1.Condition{{Type: pcorev1.ConditionStalled, Status: metav1.ConditionTrue, Reason: stalled}}
	}
	return s
}

func aSlice(service string) *pdiscoveryv1.EndpointSlice {
	s := &pdiscoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}}}
	s.AddressType = discoveryv1.AddressTypeIPv4
	s.Ports = []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(8080))}}
	s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.5"}}}
	return s
}

func aPod(name, node string) *pcorev1.Pod {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 80}}}}
	p.Status.PodIP = "10.244.1.9"
	return p
}

func TestReconcile(t *testing.T) {
	ctx := context.Background()
	scheme := runtime.NewScheme()
	if err := errors.Join(pcorev1.AddToScheme(scheme), pdiscoveryv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	node := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
	node.Spec.PodCIDRs = []string{"10.244.1.0/24", "fd00::/64"}
	c := fake.NewClientBuilder().WithScheme(scheme).WithIndex(&pdiscoveryv1.EndpointSlice{}, byService, serviceIndex).WithObjects(
		node, aService("web", "10.97.0.10", ""), aService("loser", "10.97.0.10", endpoints.ReasonIPConflict),
		aService("portless", "10.97.0.11", endpoints.ReasonPortConflict), aService("headless", "None", ""),
		aSlice("web"), aSlice("loser"), aSlice("portless"), aPod("mine", "here"), aPod("theirs", "there"),
	).Build()
	tab := &table{config: ruleset.Config{Family: ruleset.IPv4, NodeName: "here"}}
	r := NewReconciler(c, "here", tab)
	reconcile := func() error {
		t.Helper()
		_, err := r.Reconcile(ctx, request)
		return err
	}

	if err := reconcile(); err != nil {
		t.Fatal(err)
	}
	if len(tab.updates) != 1 {
		t.Fatalf("the start, at which the whole table is replaced, took %d updates", len(tab.updates))
	}
	if diff := cmp.Diff([]string{"pod shop/mine", "service shop/portless", "service shop/web"}, tab.owners()); diff != "" {
		t.Error(diff)
	}
	if len(tab.config.PodCIDRs) != 1 || tab.config.PodCIDRs[0].String() != "10.244.1.0/24" {
		t.Errorf("the node's networks: %v", tab.config.PodCIDRs)
	}
	for _, e := range tab.updates[0]["service shop/portless"].Elements {
		if e.Set == ruleset.NodePorts {
			t.Error("a node port that belongs to another service is in the rules")
		}
	}

	if err := reconcile(); err != nil || tab.checks != 1 || len(tab.updates) != 1 {
		t.Errorf("with nothing new it should look after the table: %v, %d checks, %d updates", err, tab.checks, len(tab.updates))
	}

	// What is gone is given as nothing. What couldn't be written is the table's to keep, and reported.
	if err := c.Delete(ctx, aService("web", "10.97.0.10", "")); err != nil {
		t.Fatal(err)
	}
	r.services[client.ObjectKeyFromObject(aService("web", "", ""))] = true
	tab.fail = errors.New("the kernel is busy")
	if err := reconcile(); !errors.Is(err, tab.fail) {
		t.Errorf("the failure was lost: %v", err)
	}
	if diff := cmp.Diff([]string{"service shop/web"}, slices.Collect(maps.Keys(tab.updates[1]))); diff != "" || len(tab.owners()) != 0 {
		t.Errorf("%s %v", diff, tab.owners())
	}
}
