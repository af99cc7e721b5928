// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package suffix

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func gvk(apiVersion, kind string) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(apiVersion, kind)
}

func apiVersion(kind schema.GroupVersionKind) string {
	version, _ := kind.ToAPIVersionAndKind()
	return version
}

// The whole table as a reader of the plan would write it, so that a slip in
// the rule shows as a difference here.
func TestTable(t *testing.T) {
	want := map[string]string{
		"v1 core.pinnace.dev/v1": "Pod Node Service PersistentVolume PersistentVolumeClaim ConfigMap Secret " +
			"LimitRange ResourceQuota ReplicationController Endpoints",
		"apps/v1 apps.pinnace.dev/v1":                    "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision",
		"batch/v1 batch.pinnace.dev/v1":                  "Job CronJob",
		"discovery.k8s.io/v1 discovery.pinnace.dev/v1":   "EndpointSlice",
		"networking.k8s.io/v1 networking.pinnace.dev/v1": "Ingress IngressClass NetworkPolicy",
		"storage.k8s.io/v1 storage.pinnace.dev/v1":       "StorageClass",
		"autoscaling/v2 autoscaling.pinnace.dev/v2":      "HorizontalPodAutoscaler",
		"policy/v1 policy.pinnace.dev/v1":                "PodDisruptionBudget",
	}
	got := map[string]string{}
	for _, kind := range Kinds() {
		key := apiVersion(kind.Upstream) + " " + apiVersion(kind.Pinnace)
		got[key] = strings.TrimSpace(got[key] + " " + kind.Upstream.Kind)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestBothWays(t *testing.T) {
	for _, kind := range Kinds() {
		pinnace, ok := ToPinnace(kind.Upstream)
		if !ok || pinnace != kind.Pinnace {
			t.Errorf("ToPinnace(%v) = %v, %v", kind.Upstream, pinnace, ok)
		}
		upstream, ok := ToUpstream(pinnace)
		if !ok || upstream != kind.Upstream {
			t.Errorf("ToUpstream(%v) = %v, %v", pinnace, upstream, ok)
		}
		if !IsPinnaceGroup(pinnace.Group) || IsPinnaceGroup(upstream.Group) {
			t.Errorf("%v and %v: which group is Pinnace's?", pinnace, upstream)
		}
		if Native(upstream) {
			t.Errorf("%v is both converted and native", upstream)
		}
		if _, ok := ToPinnace(pinnace); ok {
			t.Errorf("%v is converted twice", pinnace)
		}
		if kind.Resource != strings.ToLower(kind.Resource) || !strings.HasPrefix(kind.Resource, strings.ToLower(upstream.Kind)[:3]) {
			t.Errorf("%v has the resource %q", upstream, kind.Resource)
		}
	}
	// The table is the caller's own copy.
	Kinds()[0].Resource = "changed"
	if Kinds()[0].Resource != "pods" {
		t.Error("a caller changed the table")
	}
}

func TestSuccessor(t *testing.T) {
	for _, tc := range []struct{ apiVersion, kind, want string }{
		{"apps/v1beta1", "Deployment", "apps/v1"},
		{"apps/v1beta2", "StatefulSet", "apps/v1"},
		{"extensions/v1beta1", "Deployment", "apps/v1"},
		{"extensions/v1beta1", "DaemonSet", "apps/v1"},
		{"extensions/v1beta1", "Ingress", "networking.k8s.io/v1"},
		{"networking.k8s.io/v1beta1", "Ingress", "networking.k8s.io/v1"},
		{"batch/v1beta1", "CronJob", "batch/v1"},
		{"autoscaling/v1", "HorizontalPodAutoscaler", "autoscaling/v2"},
		{"autoscaling/v2beta2", "HorizontalPodAutoscaler", "autoscaling/v2"},
		{"policy/v1beta1", "PodDisruptionBudget", "policy/v1"},
		{"discovery.k8s.io/v1beta1", "EndpointSlice", "discovery.k8s.io/v1"},
		{"apps/v1", "Deployment", ""},
		{"policy/v1beta1", "PodSecurityPolicy", ""},
		{"extensions/v1beta1", "PodSecurityPolicy", ""},
		{"extensions/v1beta1", "Pod", ""},
		{"serving.knative.dev/v1", "Service", ""},
	} {
		got, ok := Successor(gvk(tc.apiVersion, tc.kind))
		if ok != (tc.want != "") || ok && apiVersion(got) != tc.want {
			t.Errorf("Successor(%s %s) = %v, %v; want %q", tc.apiVersion, tc.kind, got, ok, tc.want)
		}
	}
}

func TestNative(t *testing.T) {
	for _, tc := range []struct {
		apiVersion, kind string
		want             bool
	}{
		{"v1", "Namespace", true},
		{"v1", "ServiceAccount", true},
		{"v1", "Event", true},
		{"v1", "Pod", false},
		{"v1", "PodTemplate", false},
		{"rbac.authorization.k8s.io/v1", "ClusterRole", true},
		{"scheduling.k8s.io/v1", "PriorityClass", true},
		{"node.k8s.io/v1", "RuntimeClass", true},
		{"coordination.k8s.io/v1", "Lease", true},
		{"certificates.k8s.io/v1", "CertificateSigningRequest", true},
		{"storage.k8s.io/v1", "CSIDriver", false},
		{"example.com/v1", "Namespace", false},
	} {
		if got := Native(gvk(tc.apiVersion, tc.kind)); got != tc.want {
			t.Errorf("Native(%s %s) = %v", tc.apiVersion, tc.kind, got)
		}
	}
}

// Every kind with references is in the table, and every reference is usable.
func TestReferences(t *testing.T) {
	known := map[schema.GroupKind]bool{}
	for _, kind := range Kinds() {
		known[kind.Upstream.GroupKind()] = true
		for _, reference := range References(kind.Upstream) {
			if len(reference.Path) == 0 {
				t.Errorf("%v has a reference without a path", kind.Upstream)
			}
		}
	}
	for kind := range references {
		if !known[kind] {
			t.Errorf("references of %v, which the table doesn't hold", kind)
		}
	}
}
