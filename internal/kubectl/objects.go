// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// direction is a way to translate.
type direction struct {
	// kind translates a kind, and says whether there is an equal on the other side.
	kind func(schema.GroupVersionKind) (schema.GroupVersionKind, bool)
	// complete writes what upstream's API server writes into every object and Pinnace's doesn't.
	complete bool
}

// up goes from Pinnace's kinds to upstream's, down goes back.
var (
	up   = direction{kindUp, true}
	down = direction{kindDown, false}
)

func kindUp(kind schema.GroupVersionKind) (schema.GroupVersionKind, bool) {
	if kind.Group == suffix.Group(metricsGroup) {
		kind.Group = metricsGroup
		return kind, true
	}
	return suffix.ToUpstream(kind)
}

func kindDown(kind schema.GroupVersionKind) (schema.GroupVersionKind, bool) {
	if kind.Group == metricsGroup {
		kind.Group = suffix.Group(metricsGroup)
		return kind, true
	}
	return suffix.ToPinnace(kind)
}

// translate applies the suffix rule to an object or a list as JSON has it, in place, and to the references in it. What has no
// equal stays as it is.
func translate(object map[string]any, to direction) {
	items, _ := object["items"].([]any)
	kind, _ := object["kind"].(string)
	if single, isList := strings.CutSuffix(kind, "List"); isList && items != nil {
		rename(object, "apiVersion", single, to)
		for _, item := range items {
			if one, ok := item.(map[string]any); ok {
				translate(one, to)
			}
		}
		return
	}
	upstream := rename(object, "apiVersion", kind, to)
	switch {
	case to.complete && upstream.GroupKind() == schema.GroupKind{Kind: "Pod"}:
		completePod(object)
	case to.complete && upstream.GroupKind() == schema.GroupKind{Group: "batch", Kind: "Job"}:
		completeJob(object)
	}
	for _, reference := range suffix.References(upstream) {
		follow(object, reference.Path, func(at map[string]any) {
			named, _ := at["kind"].(string)
			if named == "" {
				named = reference.Kind
			}
			if reference.Form == suffix.ByAPIGroup {
				renameGroup(at, named, to)
				return
			}
			rename(at, "apiVersion", named, to)
		})
	}
}

// completePod writes what every pod of upstream's has, so that kubectl doesn't look whether it is there. What isn't stored yet
// stays as it is.
func completePod(pod map[string]any) {
	if spec, ok := pod["spec"].(map[string]any); ok && len(spec) > 0 && spec["securityContext"] == nil && pod["status"] != nil {
		spec["securityContext"] = map[string]any{}
	}
}

// completeJob writes the selector that upstream's API server puts into every Job: without one kubectl takes all pods for the
// Job's. Pinnace's Jobs find their pods by their owner, and label them so (docs/parity.md, job-identity).
func completeJob(job map[string]any) {
	metadata, _ := job["metadata"].(map[string]any)
	uid, _ := metadata["uid"].(string)
	if spec, ok := job["spec"].(map[string]any); ok && uid != "" && spec["selector"] == nil {
		spec["selector"] = map[string]any{"matchLabels": map[string]any{batchv1.ControllerUidLabel: uid}}
	}
}

// rename translates an apiVersion field, and returns the kind as upstream has it.
func rename(object map[string]any, field, kind string, to direction) schema.GroupVersionKind {
	version, _ := object[field].(string)
	from := schema.FromAPIVersionAndKind(version, kind)
	if translated, ok := to.kind(from); ok && version != "" {
		object[field], _ = translated.ToAPIVersionAndKind()
		from = translated
	}
	if upstream, ok := kindUp(from); ok {
		return upstream
	}
	return from
}

// renameGroup translates an apiGroup field: it names no version, so that any kind of that name and group will do.
func renameGroup(object map[string]any, kind string, to direction) {
	group, _ := object["apiGroup"].(string)
	if group == "" {
		return
	}
	for _, known := range suffix.Kinds() {
		for _, from := range []schema.GroupVersionKind{known.Upstream, known.Pinnace} {
			if from.Group != group || from.Kind != kind {
				continue
			}
			if translated, ok := to.kind(from); ok {
				object["apiGroup"] = translated.Group
				return
			}
		}
	}
}

// follow visits the mappings at a path; "*" stands for every item of a list.
func follow(value any, path []string, visit func(map[string]any)) {
	if len(path) == 0 {
		if at, ok := value.(map[string]any); ok {
			visit(at)
		}
		return
	}
	switch at := value.(type) {
	case map[string]any:
		if next, ok := at[path[0]]; ok {
			follow(next, path[1:], visit)
		}
	case []any:
		if path[0] == "*" {
			for _, item := range at {
				follow(item, path[1:], visit)
			}
		}
	}
}
