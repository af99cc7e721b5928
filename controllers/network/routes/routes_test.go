// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podnetwork"
)

func aNode(name, ip, cidr string, isReady bool) *pcorev1.Node {
	n := &pcorev1.Node{}
	n.Name = name
	if cidr != "" {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = cidr, []string{cidr}
	}
	if ip != "" {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	}
	status := corev1.ConditionFalse
	if isReady {
		status = corev1.ConditionTrue
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	return n
}

func texts(routes []podnetwork.Route) []string {
	var out []string
	for _, r := range routes {
		out = append(out, r.String())
	}
	return out
}

func TestPlan(t *testing.T) {
	nodes := []*pcorev1.Node{
		aNode("c", "172.30.0.13", "10.244.3.0/24", true),
		aNode("a", "172.30.0.11", "10.244.1.0/24", false),
		aNode("b", "172.30.0.12", "10.244.2.0/24", true),
		aNode("new", "172.30.0.14", "", true),
		aNode("unregistered", "", "10.244.5.0/24", true),
	}
	for name, self := range map[string]string{
		"a node": "b", "a node without pods yet": "new", "not yet a node": "unknown", "no address itself": "unregistered",
	} {
		t.Run(name, func(t *testing.T) {
			got := makePlan(self, nodes)
			var want []string
			for _, r := range []struct{ node, route string }{
				{"a", "10.244.1.0/24 via 172.30.0.11"}, {"b", "10.244.2.0/24 via 172.30.0.12"}, {"c", "10.244.3.0/24 via 172.30.0.13"},
			} {
				if r.node != self {
					want = append(want, r.route)
				}
			}
			if diff := cmp.Diff(want, texts(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReconcile(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := pcorev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{aNode("a", "172.30.0.11", "", true), aNode("b", "172.30.0.12", "10.244.2.0/24", true)}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	var routed []string
	r := NewReconciler(c, Options{
		Node: "a",
		EnsureRoutes: func(routes []podnetwork.Route) error {
			routed = texts(routes)
			// One node that can't be reached is said, and no reason to try again and again.
			return &podnetwork.UnreachableError{Route: routes[0]}
		},
	})
	ctx := context.Background()
	if _, err := r.Reconcile(ctx, request); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.244.2.0/24 via 172.30.0.12"}, routed); diff != "" {
		t.Error(diff)
	}
}
