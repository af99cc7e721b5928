// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package subresources

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// discovery returns the documents, by path, from which clients and the API server learn what there is.
func discovery() map[string]any {
	group, metrics := groupDocument(Group, Version), groupDocument(MetricsGroup, MetricsVersion)
	list := metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: Group + "/" + Version,
	}
	for _, sub := range subresources {
		var verbs []string
		for _, verb := range sub.verbs {
			if !slices.Contains(verbs, verb) {
				verbs = append(verbs, verb)
			}
		}
		slices.Sort(verbs)
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: "pods/" + sub.name, Namespaced: true, Kind: sub.kind, Group: sub.group, Version: sub.version, Verbs: verbs,
		})
	}
	usage := metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: MetricsGroup + "/" + MetricsVersion,
		APIResources: []metav1.APIResource{
			{Name: "nodes", Kind: "NodeMetrics", Verbs: []string{"get", "list"}},
			{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: []string{"get", "list"}},
		},
	}
	return map[string]any{
		"/apis":                 metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{group, metrics}},
		"/apis/" + Group:        group,
		"/apis/" + MetricsGroup: metrics,
		base:                    list,
		metricsBase:             usage,
		// The API server asks for schemas. Nothing here is stored, so that there is nothing to explain.
		"/openapi/v2": map[string]any{"swagger": "2.0", "info": map[string]string{"title": Group, "version": Version}, "paths": map[string]any{}},
		"/openapi/v3": map[string]any{"paths": map[string]any{}},
	}
}

func groupDocument(name, version string) metav1.APIGroup {
	only := metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + version, Version: version}
	return metav1.APIGroup{
		TypeMeta:         metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"},
		Name:             name,
		Versions:         []metav1.GroupVersionForDiscovery{only},
		PreferredVersion: only,
	}
}
