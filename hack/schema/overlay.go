// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// Overlay is one file of the overlay folder.
type Overlay struct {
	// Types are patches by Go type; they act wherever the type occurs in any kind. A type is written as its import
	// path's short form and name: core/v1.Container for k8s.io/api/core/v1, pinnace/core/v1.PodSpec for ours,
	// meta/v1.LabelSelector for apimachinery's.
	Types map[string]*Patch `json:"types,omitempty"`
	// Kinds are patches of single CRDs, laid over the flat schema after the types' patches.
	Kinds map[string]*Kind `json:"kinds,omitempty"`

	file string
}

// Kind is what one CRD gets beside its types' patches.
type Kind struct {
	// At are patches by path in the schema: spec.template.spec.volumes[].rbd; [] goes into a list's items or a map's values.
	At map[string]*Patch `json:"at,omitempty"`
	// Strip are paths below which all descriptions are dropped.
	Strip []string `json:"strip,omitempty"`
	// Columns are the printer columns, in kubectl's order.
	Columns []Column `json:"columns,omitempty"`
	// DescLen bounds the length of descriptions in this CRD; unset leaves them whole.
	DescLen *int `json:"descLen,omitempty"`
}

// Column is a printer column.
type Column struct {
	Name string `json:"name"`
	// Path is a JSONPath; a bare word stands for .status.columns.<word>.
	Path string `json:"path"`
	// Type is string when empty.
	Type string `json:"type,omitempty"`
	// Wide columns are shown by kubectl get -o wide only.
	Wide bool `json:"wide,omitempty"`
}

// Patch changes one node of a schema. The plain fields of a JSON schema replace the node's own.
type Patch struct {
	apiextensionsv1.JSONSchemaProps `json:",inline"`

	// Fields are patches of the node's properties.
	Fields map[string]*Patch `json:"fields,omitempty"`
	// Each is a patch of a list's items or a map's values.
	Each *Patch `json:"each,omitempty"`
	// Rules are CEL rules that are added to the node.
	Rules apiextensionsv1.ValidationRules `json:"rules,omitempty"`
	// Needs are properties that become required.
	Needs []string `json:"needs,omitempty"`
	// Optional are properties that are required no more; ["*"] means all.
	Optional []string `json:"optional,omitempty"`
	// Loose drops the node's own schema: anything is accepted and kept.
	Loose bool `json:"loose,omitempty"`
	// Plain makes a list or map lose its list type: duplicates are accepted and an apply replaces the whole.
	Plain bool `json:"plain,omitempty"`
}

// loadOverlays reads every *.yaml of a folder, in the order of their names.
func loadOverlays(dir string) ([]*Overlay, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing the overlay: %w", err)
	}
	sort.Strings(paths)
	if len(paths) == 0 {
		return nil, fmt.Errorf("no overlay file in %s; run from the repository's root", dir)
	}
	overlays := make([]*Overlay, 0, len(paths))
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the overlay: %w", err)
		}
		overlay := &Overlay{file: path}
		if err := yaml.UnmarshalStrict(raw, overlay); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		overlays = append(overlays, overlay)
	}
	return overlays, nil
}

// apply lays the patch over a node. where names the node in errors.
func (p *Patch) apply(node *apiextensionsv1.JSONSchemaProps, where string) error {
	if p == nil {
		return nil
	}
	if p.Loose {
		loosen(node)
	}
	if p.Plain {
		node.XListType, node.XListMapKeys, node.XMapType = nil, nil, nil
	}
	replaceSet(node, &p.JSONSchemaProps)
	node.XValidations = append(node.XValidations, p.Rules...)
	if err := p.applyRequired(node, where); err != nil {
		return err
	}
	for _, name := range sortedKeys(p.Fields) {
		property, there := node.Properties[name]
		if !there {
			return fmt.Errorf("%s has no field %q", where, name)
		}
		if err := p.Fields[name].apply(&property, where+"."+name); err != nil {
			return err
		}
		node.Properties[name] = property
	}
	if p.Each == nil {
		return nil
	}
	child := childOf(node)
	if child == nil {
		return fmt.Errorf("%s is neither a list nor a map", where)
	}
	return p.Each.apply(child, where+"[]")
}

func (p *Patch) applyRequired(node *apiextensionsv1.JSONSchemaProps, where string) error {
	for _, name := range p.Optional {
		if name == "*" {
			node.Required = nil
			continue
		}
		kept := node.Required[:0:0]
		for _, required := range node.Required {
			if required != name {
				kept = append(kept, required)
			}
		}
		if len(kept) == len(node.Required) {
			return fmt.Errorf("%s doesn't require %q", where, name)
		}
		node.Required = kept
	}
	for _, name := range p.Needs {
		if _, there := node.Properties[name]; !there && len(node.AllOf) == 0 {
			return fmt.Errorf("%s has no field %q to require", where, name)
		}
		node.Required = append(node.Required, name)
	}
	sort.Strings(node.Required)
	return nil
}

// loosen turns a node into one that accepts and keeps anything of its own type.
func loosen(node *apiextensionsv1.JSONSchemaProps) {
	keep := true
	description := node.Description
	isList := node.Type == "array"
	*node = apiextensionsv1.JSONSchemaProps{Description: description}
	loose := apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &keep}
	if isList {
		node.Type = "array"
		node.Items = &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &loose}
		return
	}
	node.Type, node.XPreserveUnknownFields = loose.Type, loose.XPreserveUnknownFields
}

// replaceSet copies every field that is set in src to dst.
func replaceSet(dst, src *apiextensionsv1.JSONSchemaProps) {
	from, to := reflect.ValueOf(src).Elem(), reflect.ValueOf(dst).Elem()
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
}

// childOf is the schema of a list's items or a map's values; nil when there is none.
func childOf(node *apiextensionsv1.JSONSchemaProps) *apiextensionsv1.JSONSchemaProps {
	if node.Items != nil {
		return node.Items.Schema
	}
	if node.AdditionalProperties != nil {
		return node.AdditionalProperties.Schema
	}
	return nil
}

// edit runs change on the node at a path such as spec.volumes[].rbd.
func edit(root *apiextensionsv1.JSONSchemaProps, path string, change func(*apiextensionsv1.JSONSchemaProps) error) error {
	if path == "" {
		return change(root)
	}
	if rest, isChild := strings.CutPrefix(path, "[]"); isChild {
		child := childOf(root)
		if child == nil {
			return fmt.Errorf("there is neither a list nor a map")
		}
		return edit(child, strings.TrimPrefix(rest, "."), change)
	}
	end := strings.IndexAny(path, ".[")
	name, rest := path, ""
	if end >= 0 {
		name, rest = path[:end], strings.TrimPrefix(path[end:], ".")
	}
	property, there := root.Properties[name]
	if !there {
		return fmt.Errorf("there is no field %q", name)
	}
	if err := edit(&property, rest, change); err != nil {
		return err
	}
	root.Properties[name] = property
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
