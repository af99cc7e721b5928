// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// manifest is an object as its author wrote it, in upstream's kind.
type manifest map[string]any

func (m manifest) copy() manifest { return runtime.DeepCopyJSON(m) }

func (m manifest) gvk() schema.GroupVersionKind {
	return (&unstructured.Unstructured{Object: m}).GroupVersionKind()
}

// pinnace returns the same object as Pinnace's kind, by the suffix rule.
func (m manifest) pinnace() manifest {
	return m.translated(m.gvk(), suffix.ToPinnace)
}

// upstream is the way back, for a result that Pinnace's kind answered with.
func (m manifest) upstream() manifest {
	own, ok := suffix.ToUpstream(m.gvk())
	if !ok {
		return m
	}
	return m.translated(own, suffix.ToUpstream)
}

func (m manifest) translated(upstream schema.GroupVersionKind, rule func(schema.GroupVersionKind) (schema.GroupVersionKind, bool)) manifest {
	out := m.copy()
	translateReference(out, suffix.ByAPIVersion, "", rule)
	for _, reference := range suffix.References(upstream) {
		eachAt(out, reference.Path, func(found map[string]any) {
			translateReference(found, reference.Form, reference.Kind, rule)
		})
	}
	return out
}

// eachAt calls visit on every mapping that the path leads to; "*" is every item of a list.
func eachAt(value any, path []string, visit func(map[string]any)) {
	switch typed := value.(type) {
	case manifest:
		eachAt(map[string]any(typed), path, visit)
	case map[string]any:
		if len(path) == 0 {
			visit(typed)
		} else if next, ok := typed[path[0]]; ok {
			eachAt(next, path[1:], visit)
		}
	case []any:
		if len(path) > 0 && path[0] == "*" {
			for _, item := range typed {
				eachAt(item, path[1:], visit)
			}
		}
	}
}

func translateReference(in map[string]any, form suffix.Form, kind string, rule func(schema.GroupVersionKind) (schema.GroupVersionKind, bool)) {
	if written, ok := in["kind"].(string); ok {
		kind = written
	}
	switch form {
	case suffix.ByAPIVersion:
		version, ok := in["apiVersion"].(string)
		if !ok {
			return
		}
		if to, ok := rule(schema.FromAPIVersionAndKind(version, kind)); ok {
			in["apiVersion"] = to.GroupVersion().String()
		}
	case suffix.ByAPIGroup:
		group, _ := in["apiGroup"].(string)
		for _, known := range suffix.Kinds() {
			for _, from := range []schema.GroupVersionKind{known.Upstream, known.Pinnace} {
				if from.Group != group || from.Kind != kind || group == "" {
					continue
				}
				if to, ok := rule(from); ok {
					in["apiGroup"] = to.Group
				}
			}
		}
	}
}

// edits are changes of a manifest by path: `spec.replicas: 3`. An element in
// brackets is an index, `+` for "append", or a key that holds dots; the value
// null takes the field away. Mappings and lists on the way are made.
type edits map[string]any

func (e edits) apply(m manifest) (manifest, error) {
	out := m.copy()
	for _, path := range sortedKeys(e) {
		elements, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		changed, err := set(map[string]any(out), elements, runtime.DeepCopyJSONValue(e[path]))
		if err != nil {
			return nil, fmt.Errorf("setting %q: %w", path, err)
		}
		out = changed.(map[string]any)
	}
	return out, nil
}

// parsePath splits "a.b[0][x.y/z]" into "a", "b", "[0", "x.y/z"; an index keeps its bracket.
func parsePath(path string) ([]string, error) {
	var out []string
	for rest := path; rest != ""; {
		if after, ok := strings.CutPrefix(rest, "["); ok {
			element, tail, closed := strings.Cut(after, "]")
			if !closed {
				return nil, fmt.Errorf("path %q: a bracket isn't closed", path)
			}
			if _, err := strconv.Atoi(element); err == nil || element == "+" {
				element = "[" + element
			}
			out, rest = append(out, element), strings.TrimPrefix(tail, ".")
			continue
		}
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		out = append(out, rest[:end])
		rest = strings.TrimPrefix(rest[end:], ".")
	}
	return out, nil
}

// set returns the container with the value put at the path.
func set(container any, path []string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	index, isIndex := strings.CutPrefix(path[0], "[")
	if !isIndex {
		fields, ok := container.(map[string]any)
		if !ok && container != nil {
			return nil, fmt.Errorf("%q is in a %T, not in a mapping", path[0], container)
		}
		if fields == nil {
			fields = map[string]any{}
		}
		if len(path) == 1 && value == nil {
			delete(fields, path[0])
			return fields, nil
		}
		child, err := set(fields[path[0]], path[1:], value)
		if err != nil {
			return nil, err
		}
		fields[path[0]] = child
		return fields, nil
	}
	items, ok := container.([]any)
	if !ok && container != nil {
		return nil, fmt.Errorf("[%s] is in a %T, not in a list", index, container)
	}
	at := len(items)
	if index != "+" {
		at, _ = strconv.Atoi(index)
	}
	switch {
	case at > len(items):
		return nil, fmt.Errorf("[%s] is beyond the list's %d items", index, len(items))
	case at == len(items):
		items = append(items, nil)
	case len(path) == 1 && value == nil:
		return append(items[:at:at], items[at+1:]...), nil
	}
	child, err := set(items[at], path[1:], value)
	if err != nil {
		return nil, err
	}
	items[at] = child
	return items, nil
}
