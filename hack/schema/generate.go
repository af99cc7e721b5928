// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/tools/go/packages"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-tools/pkg/crd"
	crdmarkers "sigs.k8s.io/controller-tools/pkg/crd/markers"
	"sigs.k8s.io/controller-tools/pkg/loader"
	"sigs.k8s.io/controller-tools/pkg/markers"
	"sigs.k8s.io/yaml"
)

// partOf is the label by which the installer and the deletion policy know Pinnace's CRDs.
const (
	partOfLabel = "app.kubernetes.io/part-of"
	partOf      = "pinnace"
)

// generated is all that comes from the API types and the overlay, files by name.
type generated struct {
	crds, policies map[string][]byte
	definitions    []apiextensionsv1.CustomResourceDefinition
}

// generate returns the CRDs of every kind under the given package patterns as YAML, by file name.
// With them come the admission policies of the rules that the schemas don't carry.
func generate(overlays []*Overlay, patterns ...string) (out generated, err error) {
	parser, roots, err := parse(patterns)
	if err != nil {
		return generated{}, err
	}
	kinds := crd.FindKubeKinds(parser, crd.FindMetav1(roots))
	if err := needTypes(parser, roots, kindNames(kinds)); err != nil {
		return generated{}, err
	}
	for _, overlay := range overlays {
		if err := overlay.applyTypes(parser); err != nil {
			return generated{}, fmt.Errorf("%s: %w", overlay.file, err)
		}
	}
	patches, err := kindPatches(overlays)
	if err != nil {
		return generated{}, err
	}
	names := kindNames(kinds)
	for kind := range patches {
		if !names[kind] {
			return generated{}, fmt.Errorf("the overlay patches kind %s, which there is not", kind)
		}
	}
	files := make(map[string][]byte, len(kinds))
	var failures []error
	var definitions []apiextensionsv1.CustomResourceDefinition
	var specRules []hoisted
	var podRules apiextensionsv1.ValidationRules
	for _, groupKind := range kinds {
		parser.NeedCRDFor(groupKind, nil)
		definition := parser.CustomResourceDefinitions[groupKind]
		crd.FixTopLevelMetadata(definition)
		if err := finish(&definition, patches[groupKind.Kind]); err != nil {
			return generated{}, fmt.Errorf("%s: %w", groupKind.Kind, err)
		}
		rules, atTop, err := hoistRules(&definition)
		if err != nil {
			return generated{}, fmt.Errorf("%s: %w", groupKind.Kind, err)
		}
		if groupKind.Kind == "Pod" {
			specRules, podRules = rules, atTop
		}
		definitions = append(definitions, definition)
		if err := validate(&definition); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", groupKind.Kind, err))
		}
		raw, err := encode(&definition)
		if err != nil {
			return generated{}, err
		}
		files[definition.Spec.Group+"_"+definition.Spec.Names.Plural+".yaml"] = raw
	}
	if len(failures) > 0 {
		return generated{}, errors.Join(failures...)
	}
	// The loader checks types only as far as the schemas need them, so type errors in its half-read packages are normal.
	if loader.PrintErrors(roots, packages.TypeError) {
		return generated{}, fmt.Errorf("the API types have the errors above")
	}
	raw, err := podPolicies(specRules, podRules)
	if err != nil {
		return generated{}, err
	}
	return generated{crds: files, policies: map[string][]byte{"pods.yaml": raw}, definitions: definitions}, nil
}

// parse loads the packages with controller-gen's own parser and markers.
func parse(patterns []string) (*crd.Parser, []*loader.Package, error) {
	roots, err := loader.LoadRoots(patterns...)
	if err != nil {
		return nil, nil, fmt.Errorf("loading the API packages: %w", err)
	}
	registry := &markers.Registry{}
	if err := crdmarkers.Register(registry); err != nil {
		return nil, nil, fmt.Errorf("registering the markers: %w", err)
	}
	parser := &crd.Parser{
		Collector:                  &markers.Collector{Registry: registry},
		Checker:                    &loader.TypeChecker{NodeFilters: []loader.NodeFilter{crd.Generator{}.CheckFilter()}},
		AllowDangerousTypes:        true,
		GenerateEmbeddedObjectMeta: true,
	}
	crd.AddKnownTypes(parser)
	for _, root := range roots {
		parser.NeedPackage(root)
	}
	return parser, roots, nil
}

// finish lays a kind's own patches, its columns and Pinnace's labels over its CRD.
func finish(definition *apiextensionsv1.CustomResourceDefinition, kind *Kind) error {
	definition.Labels = map[string]string{partOfLabel: partOf}
	version := &definition.Spec.Versions[0]
	root := version.Schema.OpenAPIV3Schema
	if kind == nil {
		return fmt.Errorf("no overlay file says which columns it has")
	}
	if kind.DescLen != nil {
		crd.TruncateDescription(root, *kind.DescLen)
	}
	for _, path := range kind.Strip {
		err := edit(root, path, func(node *apiextensionsv1.JSONSchemaProps) error {
			crd.TruncateDescription(node, 0)
			return nil
		})
		if err != nil {
			return fmt.Errorf("strip %s: %w", path, err)
		}
	}
	for _, path := range sortedKeys(kind.At) {
		err := edit(root, path, func(node *apiextensionsv1.JSONSchemaProps) error {
			return kind.At[path].apply(node, path)
		})
		if err != nil {
			return fmt.Errorf("at %s: %w", path, err)
		}
	}
	for _, name := range []string{"apiVersion", "kind"} {
		property := root.Properties[name]
		property.Description = ""
		root.Properties[name] = property
	}
	if status, there := root.Properties["status"]; there {
		relax(&status)
		root.Properties["status"] = status
	}
	version.AdditionalPrinterColumns = nil
	for _, column := range kind.Columns {
		version.AdditionalPrinterColumns = append(version.AdditionalPrinterColumns, column.definition())
	}
	return nil
}

// hoistRules takes the rules of PodSpecs, and those at the top of Pod, out of a CRD's schema.
func hoistRules(definition *apiextensionsv1.CustomResourceDefinition) ([]hoisted, apiextensionsv1.ValidationRules, error) {
	path, holds := podSpecPaths[definition.Spec.Names.Kind]
	if !holds {
		return nil, nil, nil
	}
	root := definition.Spec.Versions[0].Schema.OpenAPIV3Schema
	if definition.Spec.Names.Kind == "ReplicaSet" {
		return nil, nil, nil // Its template is loose, and has no rules.
	}
	var rules []hoisted
	err := edit(root, path, func(podSpec *apiextensionsv1.JSONSchemaProps) error {
		rules = hoist(podSpec)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("finding the pod spec at %s: %w", path, err)
	}
	if definition.Spec.Names.Kind != "Pod" {
		return rules, nil, nil
	}
	atTop := root.XValidations
	root.XValidations = nil
	return rules, atTop, nil
}

// relax makes the default {observedGeneration: -1} a valid status, and takes the rules of types that occur in specs too
// out of it: only controllers write a status, and often.
func relax(status *apiextensionsv1.JSONSchemaProps) {
	status.Required = nil
	crd.EditSchema(status, ruleDropper{})
}

type ruleDropper struct{}

func (d ruleDropper) Visit(node *apiextensionsv1.JSONSchemaProps) crd.SchemaVisitor {
	if node != nil {
		node.XValidations = nil
	}
	return d
}

func (c Column) definition() apiextensionsv1.CustomResourceColumnDefinition {
	definition := apiextensionsv1.CustomResourceColumnDefinition{Name: c.Name, Type: c.Type, JSONPath: c.Path}
	if definition.Type == "" {
		definition.Type = "string"
	}
	if !strings.HasPrefix(definition.JSONPath, ".") {
		definition.JSONPath = ".status.columns." + definition.JSONPath
	}
	if c.Wide {
		definition.Priority = 1
	}
	return definition
}

// encode writes a CRD as YAML without the fields that only a server fills in.
func encode(definition *apiextensionsv1.CustomResourceDefinition) ([]byte, error) {
	raw, err := yaml.Marshal(definition)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", definition.Name, err)
	}
	var object map[string]any
	if err := yaml.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", definition.Name, err)
	}
	delete(object, "status")
	delete(object["metadata"].(map[string]any), "creationTimestamp")
	raw, err = yaml.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", definition.Name, err)
	}
	return append([]byte("# Code generated by hack/schema. DO NOT EDIT.\n"), raw...), nil
}
