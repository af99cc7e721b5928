// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package suffix

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupSuffix ends the name of every Pinnace API group.
const GroupSuffix = ".pinnace.dev"

// Kind is one line of the table: an upstream kind and its Pinnace equal.
type Kind struct {
	// Upstream is the kind as Kubernetes serves it.
	Upstream schema.GroupVersionKind
	// Pinnace is the same kind as Pinnace serves it: same kind, same version.
	Pinnace schema.GroupVersionKind
	// Resource is the plural name in the URL, the same on both sides.
	Resource string
}

// table is HOUSE's table of objects: for each upstream group and version the
// kinds that Pinnace carries, each with its resource name.
var table = []struct {
	upstream schema.GroupVersion
	kinds    [][2]string
}{
	{schema.GroupVersion{Version: "v1"}, [][2]string{
		{"Pod", "pods"},
		{"Node", "nodes"},
		{"Service", "services"},
		{"PersistentVolume", "persistentvolumes"},
		{"PersistentVolumeClaim", "persistentvolumeclaims"},
		{"ConfigMap", "configmaps"},
		{"Secret", "secrets"},
		{"LimitRange", "limitranges"},
		{"ResourceQuota", "resourcequotas"},
		{"ReplicationController", "replicationcontrollers"},
		{"Endpoints", "endpoints"},
	}},
	{schema.GroupVersion{Group: "apps", Version: "v1"}, [][2]string{
		{"Deployment", "deployments"},
		{"ReplicaSet", "replicasets"},
		{"StatefulSet", "statefulsets"},
		{"DaemonSet", "daemonsets"},
		{"ControllerRevision", "controllerrevisions"},
	}},
	{schema.GroupVersion{Group: "batch", Version: "v1"}, [][2]string{
		{"Job", "jobs"},
		{"CronJob", "cronjobs"},
	}},
	{schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}, [][2]string{
		{"EndpointSlice", "endpointslices"},
	}},
	{schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}, [][2]string{
		{"Ingress", "ingresses"},
		{"IngressClass", "ingressclasses"},
		{"NetworkPolicy", "networkpolicies"},
	}},
	{schema.GroupVersion{Group: "storage.k8s.io", Version: "v1"}, [][2]string{
		{"StorageClass", "storageclasses"},
	}},
	{schema.GroupVersion{Group: "autoscaling", Version: "v2"}, [][2]string{
		{"HorizontalPodAutoscaler", "horizontalpodautoscalers"},
	}},
	{schema.GroupVersion{Group: "policy", Version: "v1"}, [][2]string{
		{"PodDisruptionBudget", "poddisruptionbudgets"},
	}},
}

var (
	kinds      []Kind
	byUpstream = map[schema.GroupVersionKind]Kind{}
	byPinnace  = map[schema.GroupVersionKind]Kind{}
)

// The look-up maps follow from the table once and are never written again, so
// that reading them needs no lock.
func init() {
	for _, row := range table {
		pinnace := schema.GroupVersion{Group: Group(row.upstream.Group), Version: row.upstream.Version}
		for _, names := range row.kinds {
			kind := Kind{
				Upstream: row.upstream.WithKind(names[0]),
				Pinnace:  pinnace.WithKind(names[0]),
				Resource: names[1],
			}
			kinds = append(kinds, kind)
			byUpstream[kind.Upstream] = kind
			byPinnace[kind.Pinnace] = kind
		}
	}
}

// Kinds returns the whole table, in a stable order. The caller owns the slice.
func Kinds() []Kind { return slices.Clone(kinds) }

// Group applies the rule to the name of a group alone: "apps" becomes
// "apps.pinnace.dev", "networking.k8s.io" becomes "networking.pinnace.dev" and
// "" becomes "core.pinnace.dev". It does not say whether Pinnace carries a
// kind of that group: Kinds does.
func Group(upstream string) string {
	if upstream == "" {
		return "core" + GroupSuffix
	}
	return strings.TrimSuffix(upstream, ".k8s.io") + GroupSuffix
}

// IsPinnaceGroup tells whether a group is one of Pinnace's.
func IsPinnaceGroup(group string) bool { return strings.HasSuffix(group, GroupSuffix) }

// ToPinnace returns the Pinnace equal of an upstream kind, and whether there is one.
func ToPinnace(upstream schema.GroupVersionKind) (schema.GroupVersionKind, bool) {
	kind, ok := byUpstream[upstream]
	return kind.Pinnace, ok
}

// ToUpstream returns the upstream equal of a Pinnace kind, and whether there is one.
func ToUpstream(pinnace schema.GroupVersionKind) (schema.GroupVersionKind, bool) {
	kind, ok := byPinnace[pinnace]
	return kind.Upstream, ok
}

// Successor returns the upstream kind and version that Pinnace carries for a
// kind which was written at a version that it doesn't carry, such as apps/v1
// for a Deployment of extensions/v1beta1. It returns false for a kind that the
// table holds as it is, and for one that it doesn't hold at all.
func Successor(upstream schema.GroupVersionKind) (schema.GroupVersionKind, bool) {
	if _, carried := byUpstream[upstream]; carried {
		return schema.GroupVersionKind{}, false
	}
	for _, kind := range kinds {
		// Upstream's extensions group was the first home of kinds that moved
		// to apps and networking.k8s.io; no other group's kinds ever moved.
		sameGroup := kind.Upstream.Group == upstream.Group
		moved := upstream.Group == "extensions" && kind.Upstream.Group != ""
		if kind.Upstream.Kind == upstream.Kind && (sameGroup || moved) {
			return kind.Upstream, true
		}
	}
	return schema.GroupVersionKind{}, false
}

// nativeGroups are upstream groups that Pinnace uses as they are, all of them.
var nativeGroups = map[string]bool{
	"admissionregistration.k8s.io": true,
	"apiextensions.k8s.io":         true,
	"apiregistration.k8s.io":       true,
	"authentication.k8s.io":        true,
	"authorization.k8s.io":         true,
	"certificates.k8s.io":          true,
	"coordination.k8s.io":          true,
	"events.k8s.io":                true,
	"flowcontrol.apiserver.k8s.io": true,
	"node.k8s.io":                  true,
	"rbac.authorization.k8s.io":    true,
	"scheduling.k8s.io":            true,
}

// nativeCore are the kinds of upstream's nameless group that Pinnace uses as they are.
var nativeCore = map[string]bool{"Event": true, "Namespace": true, "ServiceAccount": true}

// Native tells whether Pinnace uses an upstream kind as it is, on purpose: the
// API server already does it well, so there is no copy of it.
func Native(upstream schema.GroupVersionKind) bool {
	return nativeGroups[upstream.Group] || upstream.Group == "" && nativeCore[upstream.Kind]
}
