// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/pinnace-dev/pinnace/config"
)

// TestEmbeddedManifests shows that each object is there once, by the name that the installer looks for, with the label
// by which an earlier installation is found.
func TestEmbeddedManifests(t *testing.T) {
	all, err := readCRDs(config.Files)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no CRD is embedded")
	}
	for _, folder := range []string{"default", "rbac", "policy", "simulator"} {
		list, err := readFolder(config.Files, folder)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			t.Errorf("%s holds no manifest", folder)
		}
		all = append(all, list...)
	}
	seen := map[key]bool{}
	for _, m := range all {
		k := key{m.resource, m.namespace, m.name}
		if seen[k] {
			t.Errorf("%s %s/%s stands there twice", m.resource.Resource, m.namespace, m.name)
		}
		seen[k] = true
		var object unstructured.Unstructured
		if err := yaml.UnmarshalStrict(m.raw, &object.Object); err != nil {
			t.Errorf("%s %s: %v", m.resource.Resource, m.name, err)
			continue
		}
		if object.GetName() != m.name {
			t.Errorf("the file of %s holds %s", m.name, object.GetName())
		}
		if object.GetLabels()["app.kubernetes.io/part-of"] != "pinnace" {
			t.Errorf("%s %s lacks the label %s", m.resource.Resource, m.name, partOf)
		}
	}
}

func TestParseRefusesUnknownKinds(t *testing.T) {
	_, err := parse([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"))
	if err == nil || !strings.Contains(err.Error(), "doesn't know the kind") {
		t.Fatalf("got %v", err)
	}
}
