// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// The generated part of a kind's page in docs/spec stands between these marks; the rest is written by hand and kept.
const (
	pageBegin = "<!-- Begin: made by hack/schema; don't edit between the marks. -->"
	pageEnd   = "<!-- End: made by hack/schema. -->"
)

// page is the generated part of a kind's page: how it is called, and what fills its columns.
func page(definition *apiextensionsv1.CustomResourceDefinition) string {
	names, version := definition.Spec.Names, definition.Spec.Versions[0]
	var b strings.Builder
	upstream := strings.TrimSuffix(definition.Spec.Group, ".pinnace.dev")
	switch upstream {
	case "core":
		upstream = version.Name
	case "discovery", "networking", "storage":
		upstream += ".k8s.io/" + version.Name
	default:
		upstream += "/" + version.Name
	}
	fmt.Fprintf(&b, "`%s/%s` %s is upstream's `%s` %s, field for field.\n\n", definition.Spec.Group, version.Name, names.Kind, upstream, names.Kind)
	fmt.Fprintf(&b, "- On the command line: `kubectl get %s`, or in full `%s.%s`; categories: %s.\n",
		names.ShortNames[0], names.Plural, definition.Spec.Group, strings.Join(names.Categories, ", "))
	fmt.Fprintf(&b, "- Scope: %s. Subresources: %s.\n", strings.ToLower(string(definition.Spec.Scope)), subresources(version))
	for _, field := range version.SelectableFields {
		fmt.Fprintf(&b, "- Selectable field: `%s`.\n", strings.TrimPrefix(field.JSONPath, "."))
	}
	b.WriteString("\n| column | comes from |\n|---|---|\n")
	for _, column := range version.AdditionalPrinterColumns {
		name := strings.ToUpper(column.Name)
		if column.Priority > 0 {
			name += " (wide)"
		}
		fmt.Fprintf(&b, "| %s | `%s` |\n", name, strings.ReplaceAll(column.JSONPath, "|", "\\|"))
	}
	return b.String()
}

func subresources(version apiextensionsv1.CustomResourceDefinitionVersion) string {
	var list []string
	if version.Subresources != nil && version.Subresources.Status != nil {
		list = append(list, "status")
	}
	if version.Subresources != nil && version.Subresources.Scale != nil {
		list = append(list, "scale")
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// pages returns every kind's page in a folder, by file name, with the generated part renewed.
func pages(definitions []apiextensionsv1.CustomResourceDefinition, dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for i := range definitions {
		definition := &definitions[i]
		name := strings.ToLower(definition.Spec.Names.Kind) + ".md"
		old, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			old = []byte("# " + definition.Spec.Names.Kind + "\n\n" + pageBegin + "\n" + pageEnd +
				"\n\nWhere it differs from upstream: [parity](../parity.md).\n")
		} else if err != nil {
			return nil, fmt.Errorf("reading a page: %w", err)
		}
		before, rest, begins := strings.Cut(string(old), pageBegin)
		_, after, ends := strings.Cut(rest, pageEnd)
		if !begins || !ends {
			return nil, fmt.Errorf("%s/%s has lost its marks %q and %q", dir, name, pageBegin, pageEnd)
		}
		files[name] = []byte(before + pageBegin + "\n\n" + page(definition) + "\n" + pageEnd + after)
	}
	return files, nil
}
