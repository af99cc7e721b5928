// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// subresourcesGroup serves the subresources that the API server gives no custom resource.
const subresourcesGroup = "subresources" + suffix.GroupSuffix

// podSubresources are those of pods that stand in subresourcesGroup.
var podSubresources = []string{"attach", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize"}

// metricsGroup is upstream's group of usage; Pinnace serves its equal by the suffix rule, and it is in no table since
// nothing of it is stored.
const metricsGroup = "metrics.k8s.io"

// The namespaces that hold a Lease for each node.
const (
	upstreamLeases = "kube-node-lease"
	pinnaceLeases  = "pinnace-node-lease"
)

// place is what a path of the API names. An empty resource is the version itself.
type place struct {
	group, version, namespace, resource, name, subresource string
}

// byResource finds the kind of a resource of upstream's; the key's name is the resource.
var byResource = func() map[schema.GroupVersionResource]suffix.Kind {
	out := map[schema.GroupVersionResource]suffix.Kind{}
	for _, kind := range suffix.Kinds() {
		out[kind.Upstream.GroupVersion().WithResource(kind.Resource)] = kind
	}
	return out
}()

// ourResources are the resources by upstream's group, whatever the version, whose place Pinnace's take.
var ourResources = func() map[schema.GroupResource]bool {
	out := map[schema.GroupResource]bool{}
	for _, kind := range suffix.Kinds() {
		out[schema.GroupResource{Group: kind.Upstream.Group, Resource: kind.Resource}] = true
	}
	return out
}()

// upstreamGroup goes back from the name of one of Pinnace's groups. Only groups that have an equal are found.
var upstreamGroup = func() map[string]string {
	out := map[string]string{suffix.Group(metricsGroup): metricsGroup}
	for _, kind := range suffix.Kinds() {
		out[kind.Pinnace.Group] = kind.Upstream.Group
	}
	return out
}()

// parsePath reads a path below the API server's root. It returns false for one that isn't of the resource APIs.
func parsePath(path string) (place, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var p place
	switch {
	case parts[0] == "api" && len(parts) > 1:
		p.version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 2:
		p.group, p.version, parts = parts[1], parts[2], parts[3:]
	default:
		return place{}, false
	}
	if len(parts) > 2 && parts[0] == "namespaces" && parts[2] != "status" && parts[2] != "finalize" {
		p.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 0 {
		p.resource = parts[0]
	}
	if len(parts) > 1 {
		p.name = parts[1]
	}
	if len(parts) > 2 {
		p.subresource = strings.Join(parts[2:], "/")
	}
	return p, true
}

// path writes the place below the API server's root.
func (p place) path() string {
	parts := []string{"", "apis", p.group, p.version}
	if p.group == "" {
		parts = []string{"", "api", p.version}
	}
	if p.namespace != "" {
		parts = append(parts, "namespaces", p.namespace)
	}
	for _, part := range []string{p.resource, p.name, p.subresource} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// toPinnace finds where Pinnace has what upstream has at a place. It returns false for what both share.
func toPinnace(p place) (place, bool) {
	if group, ours := upstreamGroup[p.group]; ours {
		p.group = group
	}
	if p.group == metricsGroup {
		p.group = suffix.Group(metricsGroup)
		return p, true
	}
	if p.group == "coordination.k8s.io" && p.namespace == upstreamLeases {
		p.namespace = pinnaceLeases
		return p, true
	}
	kind, ok := byResource[schema.GroupVersionResource{Group: p.group, Version: p.version, Resource: p.resource}]
	if !ok {
		return p, false
	}
	p.group = kind.Pinnace.Group
	first, _, _ := strings.Cut(p.subresource, "/")
	if kind.Upstream.Kind == "Pod" && kind.Upstream.Group == "" && slices.Contains(podSubresources, first) {
		p.group, p.version = subresourcesGroup, "v1"
	}
	return p, true
}
