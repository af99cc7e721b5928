// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package suffix

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Form is how a reference names the group of the object it points to.
type Form int

const (
	// ByAPIVersion references have the fields apiVersion and kind.
	ByAPIVersion Form = iota
	// ByAPIGroup references have the fields apiGroup and kind.
	ByAPIGroup
)

// Reference is a place inside an object that names another object (or a nested
// one's type) by group, so that the suffix rule applies there too.
//
// A place where the group is left out or empty is no matter of this table: it
// means "the core group of whoever reads it", which is Pinnace's own core
// group in a Pinnace object.
type Reference struct {
	// Path leads from the object to the mapping that holds the reference. An
	// element "*" stands for every item of a list.
	Path []string
	// Form says which of the mapping's fields holds the group.
	Form Form
	// Kind is the kind that is meant where the mapping doesn't write one.
	Kind string
}

// metadataReferences stand in every object.
var metadataReferences = []Reference{
	{Path: []string{"metadata", "ownerReferences", "*"}},
}

// References by upstream kind. What is missing here is missing on purpose:
// fieldRef.apiVersion in a pod's env and volumes names the version of the pod's
// own fields and stays "v1" in Pinnace; a claim's dataSource can name only
// kinds outside the table, or a claim with no group.
var references = map[schema.GroupKind][]Reference{
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}: {
		{Path: []string{"spec", "scaleTargetRef"}},
		{Path: []string{"spec", "metrics", "*", "object", "describedObject"}},
	},
	{Group: "apps", Kind: "StatefulSet"}: {
		{Path: []string{"spec", "volumeClaimTemplates", "*"}, Kind: "PersistentVolumeClaim"},
	},
	{Group: "batch", Kind: "CronJob"}: {
		{Path: []string{"status", "active", "*"}},
	},
	{Kind: "PersistentVolume"}: {
		{Path: []string{"spec", "claimRef"}, Kind: "PersistentVolumeClaim"},
	},
	{Kind: "Endpoints"}: {
		{Path: []string{"subsets", "*", "addresses", "*", "targetRef"}},
		{Path: []string{"subsets", "*", "notReadyAddresses", "*", "targetRef"}},
	},
	{Group: "discovery.k8s.io", Kind: "EndpointSlice"}: {
		{Path: []string{"endpoints", "*", "targetRef"}},
	},
	{Group: "networking.k8s.io", Kind: "Ingress"}: {
		{Path: []string{"spec", "defaultBackend", "resource"}, Form: ByAPIGroup},
		{Path: []string{"spec", "rules", "*", "http", "paths", "*", "backend", "resource"}, Form: ByAPIGroup},
	},
	{Group: "networking.k8s.io", Kind: "IngressClass"}: {
		{Path: []string{"spec", "parameters"}, Form: ByAPIGroup},
	},
}

// References returns the places of an upstream kind's object to which the
// suffix rule applies besides its own apiVersion. The paths are the same in
// the Pinnace equal. The caller owns the slice, not the paths in it.
func References(upstream schema.GroupVersionKind) []Reference {
	own := slices.Clone(metadataReferences)
	// A managed field set is told apart by the version of the object it stands in.
	own = append(own, Reference{Path: []string{"metadata", "managedFields", "*"}, Kind: upstream.Kind})
	return append(own, references[upstream.GroupKind()]...)
}
