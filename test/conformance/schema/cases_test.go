// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// A testCase is one question to both kinds.
type testCase struct {
	// name is "file/name of the case", unique.
	name string
	// object is what is created; in an update case, what exists before.
	object manifest
	// change is what an update case does to the object as it is read back from
	// the server; nil in a create case.
	change edits
	// before are objects that must exist first, such as a claim's StorageClass.
	before []manifest
	// want is upstream's verdict as the case's author stated it; empty if not stated.
	want verdict
}

// group is one document of testdata/*.yaml: see testdata/README.md.
type group struct {
	Base         manifest         `json:"base"`
	Before       []manifest       `json:"before,omitempty"`
	InTemplates  bool             `json:"inTemplates,omitempty"`
	Accept       map[string]edits `json:"accept,omitempty"`
	Reject       map[string]edits `json:"reject,omitempty"`
	UpdateAccept map[string]edits `json:"updateAccept,omitempty"`
	UpdateReject map[string]edits `json:"updateReject,omitempty"`
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// loadGroups reads testdata/*.yaml, by file name without its ending.
func loadGroups(dir string) (map[string][]group, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	out := map[string][]group{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		for number, document := range documents(content) {
			var one group
			if err := yaml.UnmarshalStrict(document, &one); err != nil {
				return nil, fmt.Errorf("%s, document %d: %w", file, number+1, err)
			}
			out[name] = append(out[name], one)
		}
	}
	return out, nil
}

// documents splits a YAML stream; documents without content are left out.
func documents(content []byte) [][]byte {
	var out [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		var parsed any
		if yaml.Unmarshal(document, &parsed) != nil || parsed != nil {
			out = append(out, document)
		}
	}
}

// madeCases turns the groups into cases.
func madeCases(groups map[string][]group) ([]testCase, error) {
	var out []testCase
	seen := map[string]bool{}
	add := func(one testCase) error {
		if seen[one.name] {
			return fmt.Errorf("two cases are named %q", one.name)
		}
		seen[one.name] = true
		out = append(out, one)
		return nil
	}
	for _, file := range sortedKeys(groups) {
		for _, g := range groups[file] {
			for _, set := range []struct {
				cases  map[string]edits
				want   verdict
				update bool
			}{{g.Accept, accepted, false}, {g.Reject, refused, false}, {g.UpdateAccept, accepted, true}, {g.UpdateReject, refused, true}} {
				for _, name := range sortedKeys(set.cases) {
					change := set.cases[name]
					edited, err := change.apply(g.Base)
					if err != nil {
						return nil, fmt.Errorf("%s/%s: %w", file, name, err)
					}
					one := testCase{name: file + "/" + name, object: edited, before: g.Before, want: set.want}
					if set.update {
						one.object, one.change = g.Base.copy(), change
						if change == nil {
							one.change = edits{}
						}
					}
					if err := add(one); err != nil {
						return nil, err
					}
					if !g.InTemplates || set.update {
						continue
					}
					if err := add(inTemplate(one, len(out))); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return out, nil
}

// inTemplate puts a pod case into the template of a workload, each time the
// next kind of workload, so that templates are held to the same rules. The
// author's verdict doesn't bind there: a template has rules of its own.
func inTemplate(pod testCase, number int) testCase {
	template := manifest{"metadata": map[string]any{"labels": map[string]any{"app": "a"}}, "spec": pod.object.copy()["spec"]}
	selector := map[string]any{"matchLabels": map[string]any{"app": "a"}}
	spec := map[string]any{"template": map[string]any(template), "selector": selector}
	apiVersion, kind := "apps/v1", ""
	switch number % 6 {
	case 0:
		kind = "Deployment"
	case 1:
		kind = "StatefulSet"
		spec["serviceName"] = "a"
	case 2:
		kind = "DaemonSet"
	case 3, 4:
		apiVersion, kind = "batch/v1", "Job"
		delete(spec, "selector")
		if inner, ok := template["spec"].(map[string]any); ok && inner["restartPolicy"] == nil {
			inner["restartPolicy"] = "Never"
		}
		if number%6 == 4 {
			kind = "CronJob"
			spec = map[string]any{"schedule": "@daily", "jobTemplate": map[string]any{"spec": spec}}
		}
	case 5:
		apiVersion, kind = "v1", "ReplicationController"
		spec["selector"] = map[string]any{"app": "a"}
	}
	return testCase{
		name: pod.name + " (in a " + kind + ")",
		object: manifest{
			"apiVersion": apiVersion, "kind": kind,
			"metadata": map[string]any{"name": "in-template"}, "spec": spec,
		},
	}
}

// longCases are manifests that are too long to write down.
func longCases() []testCase {
	rules := make([]any, 100)
	for i := range rules {
		rules[i] = map[string]any{"ports": []any{map[string]any{"port": int64(i + 1)}}}
	}
	return []testCase{{
		name: "long/networkpolicy, a hundred rules",
		want: accepted,
		object: manifest{
			"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": map[string]any{"name": "long"},
			"spec": map[string]any{"podSelector": map[string]any{}, "ingress": rules},
		},
	}}
}

// corpusCases reads every document of the corpus that has a Pinnace kind; the
// second result counts those that have none, such as a ServiceAccount.
func corpusCases(dir string) (cases []testCase, without int, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		for number, document := range documents(content) {
			object := manifest{}
			if err := yaml.Unmarshal(document, &object); err != nil {
				return fmt.Errorf("%s, document %d: %w", path, number+1, err)
			}
			if _, ok := suffix.ToPinnace(object.gvk()); !ok {
				without++
				continue
			}
			cases = append(cases, testCase{name: fmt.Sprintf("corpus/%s#%d", filepath.ToSlash(file), number+1), object: object})
		}
		return nil
	})
	return cases, without, err
}

// resource returns the resource of an upstream kind, and of its Pinnace equal.
func resources(upstream schema.GroupVersionKind) (native, pinnace schema.GroupVersionResource, ok bool) {
	for _, kind := range suffix.Kinds() {
		if kind.Upstream == upstream {
			return kind.Upstream.GroupVersion().WithResource(kind.Resource), kind.Pinnace.GroupVersion().WithResource(kind.Resource), true
		}
	}
	return native, pinnace, false
}
