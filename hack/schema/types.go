// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-tools/pkg/crd"
	"sigs.k8s.io/controller-tools/pkg/loader"
)

const modulePath = "github.com/pinnace-dev/pinnace"

// importPath turns the overlay's short form of a package into its import path.
func importPath(short string) string {
	switch {
	case strings.HasPrefix(short, "pinnace/"):
		return modulePath + "/api/" + strings.TrimPrefix(short, "pinnace/")
	case strings.HasPrefix(short, "meta/"):
		return "k8s.io/apimachinery/pkg/apis/" + short
	case strings.HasPrefix(short, "util/"):
		return "k8s.io/apimachinery/pkg/" + short
	default:
		return "k8s.io/api/" + short
	}
}

func kindNames(kinds []schema.GroupKind) map[string]bool {
	names := make(map[string]bool, len(kinds))
	for _, kind := range kinds {
		names[kind.Kind] = true
	}
	return names
}

// needTypes makes the parser hold the unflattened schema of every type that the kinds reach, so that a patch of a
// type acts before the types are copied into each other.
func needTypes(parser *crd.Parser, roots []*loader.Package, kinds map[string]bool) error {
	var queue []crd.TypeIdent
	for _, root := range roots {
		for ident := range parser.Types {
			if ident.Package == root && kinds[ident.Name] {
				queue = append(queue, ident)
			}
		}
	}
	seen := map[crd.TypeIdent]bool{}
	for len(queue) > 0 {
		ident := queue[0]
		queue = queue[1:]
		if seen[ident] {
			continue
		}
		seen[ident] = true
		parser.NeedSchemaFor(ident)
		node := parser.Schemata[ident]
		found := &refs{from: ident.Package}
		crd.EditSchema(&node, found)
		if found.err != nil {
			return found.err
		}
		queue = append(queue, found.idents...)
	}
	return nil
}

// refs collects the types that a schema refers to.
type refs struct {
	from   *loader.Package
	idents []crd.TypeIdent
	err    error
}

func (r *refs) Visit(node *apiextensionsv1.JSONSchemaProps) crd.SchemaVisitor {
	if node == nil || node.Ref == nil || *node.Ref == "" {
		return r
	}
	name, path, err := crd.RefParts(*node.Ref)
	if err != nil {
		r.err = err
		return nil
	}
	pkg := r.from
	if path != "" {
		pkg = r.from.Imports()[path]
	}
	r.idents = append(r.idents, crd.TypeIdent{Package: pkg, Name: name})
	return r
}

// applyTypes lays the overlay's patches of types over the parser's schemata.
func (o *Overlay) applyTypes(parser *crd.Parser) error {
	for _, key := range sortedKeys(o.Types) {
		dot := strings.LastIndex(key, ".")
		if dot < 0 {
			return fmt.Errorf("%q isn't a type such as core/v1.Container", key)
		}
		path, name := importPath(key[:dot]), key[dot+1:]
		found := false
		for ident, node := range parser.Schemata {
			if ident.Name != name || loader.NonVendorPath(ident.Package.PkgPath) != path {
				continue
			}
			found = true
			if err := o.Types[key].apply(&node, key); err != nil {
				return err
			}
			parser.Schemata[ident] = node
		}
		if !found {
			return fmt.Errorf("no kind uses the type %s", key)
		}
	}
	return nil
}

// kindPatches gathers the kinds' patches of all files; a kind may stand in one file only.
func kindPatches(overlays []*Overlay) (map[string]*Kind, error) {
	patches := map[string]*Kind{}
	for _, overlay := range overlays {
		for name, kind := range overlay.Kinds {
			if patches[name] != nil {
				return nil, fmt.Errorf("%s: kind %s stands in another overlay file too", overlay.file, name)
			}
			patches[name] = kind
		}
	}
	return patches, nil
}
