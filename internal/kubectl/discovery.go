// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// aggregated is the media type of discovery in two documents, which every API server that can run Pinnace serves.
const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// isDiscovery says that a path is a document of discovery that names resources.
func isDiscovery(path string) bool {
	if path == "/api" || path == "/apis" {
		return true
	}
	p, ok := parsePath(path)
	return ok && p.resource == ""
}

// discover answers with what the API server serves, put together so that Pinnace's kinds stand in the place of upstream's.
func (t *transport) discover(r *http.Request, path string) (*http.Response, error) {
	if path == "/api" || path == "/apis" {
		if !strings.Contains(r.Header.Get("Accept"), "as=APIGroupDiscoveryList") {
			return t.discoverNames(r, path)
		}
		return t.discoverAll(r, path)
	}
	return t.discoverVersion(r, path)
}

// document reads one document of discovery. The answer comes back too, with its body read; not found is no failure.
func (t *transport) document(r *http.Request, path, accept string, to any) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Path, out.URL.RawPath = t.prefix+path, ""
	out.Header.Set("Accept", accept)
	// A cache in front of us keeps what we answer, of which the API server knows nothing.
	for _, name := range []string{"If-None-Match", "If-Modified-Since"} {
		out.Header.Del(name)
	}
	response, err := t.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	response.Header.Del("Etag")
	if response.StatusCode != http.StatusOK {
		return response, nil
	}
	data, err := readAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	replaceBody(response, data)
	if err := json.Unmarshal(data, to); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return response, nil
}

func reply(response *http.Response, document any) (*http.Response, error) {
	data, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encoding discovery: %w", err)
	}
	replaceBody(response, data)
	return response, nil
}

// discoverAll answers with all groups and resources of /api or /apis. Both need both: Pinnace's core group is among the named.
func (t *transport) discoverAll(r *http.Request, path string) (*http.Response, error) {
	var core, named apidiscoveryv2.APIGroupDiscoveryList
	first, err := t.document(r, "/apis", aggregated, &named)
	if err != nil || first.StatusCode != http.StatusOK {
		return first, err
	}
	if path == "/apis" {
		named.Items = composeNamed(named.Items)
		return reply(first, named)
	}
	second, err := t.document(r, "/api", aggregated, &core)
	if err != nil || second.StatusCode != http.StatusOK {
		return second, err
	}
	_, _ = io.Copy(io.Discard, first.Body)
	core.Items = composeCore(core.Items, named.Items)
	return reply(second, core)
}

// composeNamed is pure: it gives the groups that have a name as upstream's clients expect them. Pinnace's own names follow at
// the end, so that manifests and arguments that say them are understood.
func composeNamed(groups []apidiscoveryv2.APIGroupDiscovery) []apidiscoveryv2.APIGroupDiscovery {
	var out, own []apidiscoveryv2.APIGroupDiscovery
	at := map[string]int{}
	for _, group := range groups {
		if suffix.IsPinnaceGroup(group.Name) {
			own = append(own, group)
			continue
		}
		at[group.Name] = len(out)
		out = append(out, withoutOurs(group))
	}
	for _, group := range own {
		name, ok := upstreamGroup[group.Name]
		if !ok || name == "" {
			continue
		}
		renamed := asUpstream(group, name)
		if i, ok := at[name]; ok {
			out[i] = merged(out[i], renamed)
			continue
		}
		at[name] = len(out)
		out = append(out, renamed)
	}
	out = slices.DeleteFunc(out, func(g apidiscoveryv2.APIGroupDiscovery) bool { return len(g.Versions) == 0 })
	for _, group := range own {
		if _, ok := upstreamGroup[group.Name]; ok {
			out = append(out, quiet(group))
		}
	}
	return out
}

// composeCore is pure: it gives the group without a name.
func composeCore(core, named []apidiscoveryv2.APIGroupDiscovery) []apidiscoveryv2.APIGroupDiscovery {
	out := apidiscoveryv2.APIGroupDiscovery{}
	for _, group := range core {
		out = merged(out, withoutOurs(group))
	}
	var subresources []apidiscoveryv2.APISubresourceDiscovery
	for _, group := range named {
		switch group.Name {
		case suffix.Group(""):
			out = merged(out, asUpstream(group, ""))
		case subresourcesGroup:
			subresources = podSubresourcesOf(group)
		}
	}
	for v := range out.Versions {
		for i := range out.Versions[v].Resources {
			if resource := &out.Versions[v].Resources[i]; resource.Resource == "pods" {
				resource.Subresources = append(resource.Subresources, subresources...)
			}
		}
	}
	return []apidiscoveryv2.APIGroupDiscovery{out}
}

func podSubresourcesOf(group apidiscoveryv2.APIGroupDiscovery) []apidiscoveryv2.APISubresourceDiscovery {
	var out []apidiscoveryv2.APISubresourceDiscovery
	for _, version := range group.Versions {
		for _, resource := range version.Resources {
			if resource.Resource == "pods" {
				for _, sub := range resource.Subresources {
					sub.ResponseKind = kindAsUpstream(sub.ResponseKind)
					out = append(out, sub)
				}
			}
		}
	}
	return out
}

// withoutOurs drops from a native group what Pinnace's kinds take the place of.
func withoutOurs(group apidiscoveryv2.APIGroupDiscovery) apidiscoveryv2.APIGroupDiscovery {
	var versions []apidiscoveryv2.APIVersionDiscovery
	for _, version := range group.Versions {
		version.Resources = slices.DeleteFunc(slices.Clone(version.Resources), func(r apidiscoveryv2.APIResourceDiscovery) bool {
			return group.Name == metricsGroup || ourResources[schema.GroupResource{Group: group.Name, Resource: r.Resource}]
		})
		if len(version.Resources) > 0 {
			versions = append(versions, version)
		}
	}
	group.Versions = versions
	return group
}

// asUpstream renames one of Pinnace's groups. The short names get upstream's beside their own: ppo is po as well.
func asUpstream(group apidiscoveryv2.APIGroupDiscovery, name string) apidiscoveryv2.APIGroupDiscovery {
	group.Name = name
	group.Versions = slices.Clone(group.Versions)
	for v := range group.Versions {
		resources := slices.Clone(group.Versions[v].Resources)
		for i := range resources {
			resource := &resources[i]
			resource.ResponseKind = kindAsUpstream(resource.ResponseKind)
			resource.ShortNames = shortNames(resource.ShortNames)
			resource.Subresources = slices.Clone(resource.Subresources)
			for s := range resource.Subresources {
				resource.Subresources[s].ResponseKind = kindAsUpstream(resource.Subresources[s].ResponseKind)
			}
		}
		group.Versions[v].Resources = resources
	}
	return group
}

// quiet is a group of Pinnace's under its own name, found only by who says it in full: what is printed and sent is upstream's.
func quiet(group apidiscoveryv2.APIGroupDiscovery) apidiscoveryv2.APIGroupDiscovery {
	group = asUpstream(group, group.Name)
	for v := range group.Versions {
		for i := range group.Versions[v].Resources {
			resource := &group.Versions[v].Resources[i]
			resource.ShortNames, resource.Categories = nil, nil
		}
	}
	return group
}

func kindAsUpstream(kind *metav1.GroupVersionKind) *metav1.GroupVersionKind {
	if kind == nil {
		return nil
	}
	translated, ok := kindUp(schema.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind})
	if !ok {
		return kind
	}
	return &metav1.GroupVersionKind{Group: translated.Group, Version: translated.Version, Kind: translated.Kind}
}

// shortNames adds upstream's short names to Pinnace's, which have a p in front.
func shortNames(own []string) []string {
	var out []string
	for _, name := range own {
		if short := strings.TrimPrefix(name, "p"); short != name && short != "" {
			out = append(out, short)
		}
	}
	return append(out, own...)
}

// merged puts the versions of one group into another's.
func merged(into, from apidiscoveryv2.APIGroupDiscovery) apidiscoveryv2.APIGroupDiscovery {
	if into.Name == "" && into.TypeMeta.Kind == "" && len(into.Versions) == 0 {
		return from
	}
	into.Versions = slices.Clone(into.Versions)
	for _, version := range from.Versions {
		i := slices.IndexFunc(into.Versions, func(v apidiscoveryv2.APIVersionDiscovery) bool { return v.Version == version.Version })
		if i < 0 {
			into.Versions = append(into.Versions, version)
			continue
		}
		into.Versions[i].Resources = append(slices.Clone(into.Versions[i].Resources), version.Resources...)
	}
	return into
}

// discoverNames answers with the groups alone.
func (t *transport) discoverNames(r *http.Request, path string) (*http.Response, error) {
	var list metav1.APIGroupList
	response, err := t.document(r, path, "application/json", &list)
	if err != nil || response.StatusCode != http.StatusOK || path == "/api" {
		return response, err
	}
	var own []metav1.APIGroup
	for _, group := range list.Groups {
		name, ok := upstreamGroup[group.Name]
		if !ok || name == "" || slices.ContainsFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == name }) {
			continue
		}
		group.Name, group.Versions = name, slices.Clone(group.Versions)
		for i := range group.Versions {
			group.Versions[i].GroupVersion = name + "/" + group.Versions[i].Version
		}
		group.PreferredVersion.GroupVersion = name + "/" + group.PreferredVersion.Version
		own = append(own, group)
	}
	list.Groups = append(list.Groups, own...)
	return reply(response, list)
}

// discoverVersion answers with the resources of one version of a group.
func (t *transport) discoverVersion(r *http.Request, path string) (*http.Response, error) {
	p, _ := parsePath(path)
	upstream := p.group
	if name, ours := upstreamGroup[p.group]; ours {
		upstream = name
	}
	own := suffix.Group(upstream)
	if upstreamGroup[own] != upstream {
		return t.base.RoundTrip(r) // A group that Pinnace has nothing of.
	}
	var native, ours, subresources metav1.APIResourceList
	answered, err := t.document(r, place{group: upstream, version: p.version}.path(), "application/json", &native)
	if err != nil {
		return nil, err
	}
	native.APIResources = slices.DeleteFunc(native.APIResources, func(a metav1.APIResource) bool {
		resource, _, _ := strings.Cut(a.Name, "/")
		return upstream == metricsGroup || ourResources[schema.GroupResource{Group: upstream, Resource: resource}]
	})
	second, err := t.document(r, place{group: own, version: p.version}.path(), "application/json", &ours)
	if err != nil {
		return nil, err
	}
	if second.StatusCode == http.StatusOK {
		answered = second
	}
	if answered.StatusCode != http.StatusOK {
		return answered, nil
	}
	if upstream == "" {
		if _, err := t.document(r, place{group: subresourcesGroup, version: "v1"}.path(), "application/json", &subresources); err != nil {
			return nil, err
		}
	}
	all := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: schema.GroupVersion{Group: p.group, Version: p.version}.String()}
	for i := range ours.APIResources {
		ours.APIResources[i].ShortNames = shortNames(ours.APIResources[i].ShortNames)
	}
	all.APIResources = slices.Concat(native.APIResources, ours.APIResources, subresources.APIResources)
	for i := range all.APIResources {
		resource := &all.APIResources[i]
		if translated, ok := kindUp(schema.GroupVersionKind{Group: resource.Group, Version: resource.Version, Kind: resource.Kind}); ok {
			resource.Group, resource.Version = translated.Group, translated.Version
		}
	}
	return reply(answered, all)
}
