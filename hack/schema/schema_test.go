// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const repository = "../.."

// inRepository runs the rest of the test where the program runs.
func inRepository(t *testing.T) {
	t.Helper()
	t.Chdir(repository)
}

func TestFilesAreFresh(t *testing.T) {
	inRepository(t)
	if err := run(true); err != nil {
		t.Fatal(err)
	}
}

// TestPatchThatMatchesNothing shows that an overlay can't rot: whatever it names must be there.
func TestPatchThatMatchesNothing(t *testing.T) {
	for name, c := range map[string]struct{ at, patch, want string }{
		"field":           {"", "fields: {nosuch: {loose: true}}", `has no field "nosuch"`},
		"each of no list": {"", "fields: {image: {each: {loose: true}}}", "neither a list nor a map"},
		"needed field":    {"", "needs: [nosuch]", `no field "nosuch" to require`},
		"not required":    {"", "optional: [image]", `doesn't require "image"`},
		"path":            {"ports[].nosuch", "loose: true", `there is no field "nosuch"`},
		"path in no list": {"image[]", "loose: true", "neither a list nor a map"},
	} {
		t.Run(name, func(t *testing.T) {
			var patch Patch
			if err := yaml.UnmarshalStrict([]byte(c.patch), &patch); err != nil {
				t.Fatal(err)
			}
			text := apiextensionsv1.JSONSchemaProps{Type: "string"}
			port := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"name": text}}
			container := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
				"image": text,
				"ports": {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &port}},
			}}
			err := edit(&container, c.at, func(node *apiextensionsv1.JSONSchemaProps) error { return patch.apply(node, "container") })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestOverlayThatMatchesNothing(t *testing.T) {
	for name, c := range map[string]struct{ overlay, want string }{
		"type":        {"types: {core/v1.NoSuchType: {loose: true}}", "no kind uses the type core/v1.NoSuchType"},
		"kind":        {"kinds: {Sloop: {}}", "kind Sloop, which there is not"},
		"word":        {"kinds: {Pod: {colums: []}}", "unknown field"},
		"second file": {"kinds: {Pod: {}}\n---\nkinds: {Pod: {}}", "stands in another overlay file too"},
		"refused CRD": {"kinds: {Pod: {at: {spec.nodeName: {default: 3}}}}", "an API server would refuse the CRD"},
	} {
		t.Run(name, func(t *testing.T) {
			err := generateWith(t, c.overlay)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// generateWith runs the generator with the given overlay files alone; every kind that it leaves out gets no columns.
func generateWith(t *testing.T, overlay string) error {
	t.Helper()
	inRepository(t)
	dir := t.TempDir()
	var rest strings.Builder
	rest.WriteString("types:\n  core/v1.ContainerPort: {fields: {protocol: {default: TCP}}}\n  core/v1.ServicePort: {fields: {protocol: {default: TCP}}}\nkinds:\n")
	real, err := loadOverlays("hack/schema/overlay")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range real {
		for kind := range one.Kinds {
			if !strings.Contains(overlay, "kinds: {"+kind+":") {
				rest.WriteString("  " + kind + ": {}\n")
			}
		}
	}
	files := append(strings.Split(overlay, "\n---\n"), rest.String())
	for i, content := range files {
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))+".yaml"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlays, err := loadOverlays(dir)
	if err != nil {
		return err
	}
	_, err = generate(overlays, "./api/...")
	return err
}

func TestHoistedExpressions(t *testing.T) {
	rule := apiextensionsv1.ValidationRule{Rule: "self.a == 1", Message: "a must be 1."}
	for name, c := range map[string]struct {
		paths               []string
		expression, message string
	}{
		"at the top":      {[]string{""}, "[variables.podSpec].all(self, self.a == 1)", "a must be 1."},
		"field":           {[]string{"os"}, "!has(variables.podSpec.os) || [variables.podSpec.os].all(self, self.a == 1)", "os: a must be 1."},
		"list":            {[]string{"tolerations[]"}, "!has(variables.podSpec.tolerations) || variables.podSpec.tolerations.all(self, self.a == 1)", "tolerations[]: a must be 1."},
		"both containers": {[]string{"containers[]", "initContainers[]"}, "variables.containers.all(self, self.a == 1)", "containers[]: a must be 1."},
		"deep": {
			[]string{"containers[].env[].valueFrom"},
			"variables.containers.all(v0, !has(v0.env) || v0.env.all(v1, !has(v1.valueFrom) || [v1.valueFrom].all(self, self.a == 1)))",
			"containers[].env[].valueFrom: a must be 1.",
		},
		"two places": {
			[]string{"a", "b"},
			"(!has(variables.podSpec.a) || [variables.podSpec.a].all(self, self.a == 1)) && (!has(variables.podSpec.b) || [variables.podSpec.b].all(self, self.a == 1))",
			"a, b: a must be 1.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := hoisted{rule: rule, paths: c.paths}
			if got := h.expression(); got != c.expression {
				t.Errorf("expression\n got %s\nwant %s", got, c.expression)
			}
			if got := h.message(); got != c.message {
				t.Errorf("message: got %q, want %q", got, c.message)
			}
		})
	}
}

// TestSchemaBudget holds the CRDs to what docs/adr/0020-schema-budget.md decided.
func TestSchemaBudget(t *testing.T) {
	inRepository(t)
	paths, err := filepath.Glob("config/crd/bases/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(raw, &definition); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if definition.Labels[partOfLabel] != partOf {
			t.Errorf("%s: the label %s is missing", path, partOfLabel)
		}
		kind := definition.Spec.Names.Kind
		root := definition.Spec.Versions[0].Schema.OpenAPIV3Schema
		if kind == "Pod" && len(raw) > 800<<10 || kind != "Pod" && len(raw) > 340<<10 {
			t.Errorf("%s has %d KB", path, len(raw)>>10)
		}
		at, holds := podSpecPaths[kind]
		if !holds || kind == "ReplicaSet" {
			continue
		}
		err = edit(root, at, func(podSpec *apiextensionsv1.JSONSchemaProps) error {
			if rules := hoist(podSpec); len(rules) > 0 {
				t.Errorf("%s: the pod spec carries %d CEL rules", kind, len(rules))
			}
			if kind != "Pod" && podSpec.Properties["containers"].Items.Schema.Properties["image"].Description != "" {
				t.Errorf("%s: the template carries descriptions", kind)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
