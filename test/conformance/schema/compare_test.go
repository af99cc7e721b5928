// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

// verdict is the API server's answer to a manifest.
type verdict string

const (
	accepted verdict = "accepted"
	refused  verdict = "refused"
)

// answer is what one kind said.
type answer struct {
	verdict verdict
	// sentence is the API server's, when it refused.
	sentence string
	// object is the defaulted object, in upstream's apiVersion, when it accepted.
	object manifest
}

// fieldDifference is a place where the two defaulted objects differ; an absent
// value is nil.
type fieldDifference struct {
	path         string
	native, ours any
}

func (d fieldDifference) String() string {
	return fmt.Sprintf("%s: upstream has %s, ours has %s", d.path, shown(d.native), shown(d.ours))
}

func shown(value any) string {
	if value == nil {
		return "nothing"
	}
	text := fmt.Sprintf("%#v", value)
	if s, ok := value.(string); ok {
		text = fmt.Sprintf("%q", s)
	}
	if len(text) > 120 {
		text = text[:117] + "..."
	}
	return text
}

// normalisations are what the comparison doesn't look at. Each is a promise
// that nobody can see the difference, so the list stays short; docs/parity.md
// repeats it.
var normalisations = []struct{ what, reason string }{
	{"metadata.uid, creationTimestamp, resourceVersion, managedFields, generation", "the API server makes them anew for each object."},
	{"metadata.name, where generateName stands", "the API server draws it."},
	{"annotations columns.pinnace.dev/…", "an extension that holds what kubectl's columns show, as status.columns does elsewhere."},
	{"apiVersion and apiGroup, embedded ones too", "the suffix rule itself."},
	{"status.observedGeneration: -1", "HOUSE's default for every status, so that a tool never takes a fresh object for a finished one; upstream has none."},
	{"a zero value (false, 0, \"\", {}, []) that was written and that upstream drops", "upstream's serialiser leaves zero values out; the two mean the same."},
	{"an empty mapping that upstream adds", "upstream's serialiser writes structs that hold nothing; the two mean the same."},
	{"a zero in status that upstream adds", "upstream's serialiser writes those counters before anybody has counted; ours appear with the first status."},
	{"the spelling of a quantity (1000m and 1)", "upstream rewrites it; the amounts are compared."},
}

var serverMade = map[string]bool{
	"metadata.uid": true, "metadata.creationTimestamp": true, "metadata.resourceVersion": true,
	"metadata.managedFields": true, "metadata.generation": true,
}

// compareObjects returns the places where two accepted objects differ.
func compareObjects(native, ours manifest) []fieldDifference {
	var out []fieldDifference
	if metadata, ok := native["metadata"].(map[string]any); ok && metadata["generateName"] != nil {
		metadata["name"] = "generated"
		ours["metadata"].(map[string]any)["name"] = "generated"
	}
	compareValues("", map[string]any(native), map[string]any(ours), &out)
	return out
}

func compareValues(path string, native, ours any, out *[]fieldDifference) {
	if serverMade[path] || strings.HasPrefix(path, "metadata.annotations[columns.pinnace.dev/") || path == "status.observedGeneration" && native == nil && ours == int64(-1) {
		return
	}
	nativeFields, isMap := native.(map[string]any)
	ourFields, oursIsMap := ours.(map[string]any)
	if isMap && oursIsMap || isMap && ours == nil || oursIsMap && native == nil {
		// An absent mapping is compared field by field, so that the fields that
		// one side's defaults made are named one by one.
		for _, key := range sortedKeys(union(nativeFields, ourFields)) {
			compareValues(join(path, key), nativeFields[key], ourFields[key], out)
		}
		return
	}
	nativeItems, isList := native.([]any)
	ourItems, oursIsList := ours.([]any)
	if isList && oursIsList && len(nativeItems) == len(ourItems) {
		for i := range nativeItems {
			compareValues(fmt.Sprintf("%s[%d]", path, i), nativeItems[i], ourItems[i], out)
		}
		return
	}
	if strings.HasPrefix(path, "status.") && ours == nil && isZero(native) {
		return
	}
	if reflect.DeepEqual(native, ours) || native == nil && isZero(ours) || sameQuantity(native, ours) {
		return
	}
	*out = append(*out, fieldDifference{path: path, native: native, ours: ours})
}

func join(path, key string) string {
	if strings.ContainsAny(key, "./") {
		return path + "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func union(a, b map[string]any) map[string]bool {
	out := map[string]bool{}
	for key := range a {
		out[key] = true
	}
	for key := range b {
		out[key] = true
	}
	return out
}

func isZero(value any) bool {
	switch typed := value.(type) {
	case []any:
		return len(typed) == 0
	case map[string]any:
		return len(typed) == 0
	}
	return value == nil || reflect.ValueOf(value).IsZero()
}

func sameQuantity(native, ours any) bool {
	text, ok := native.(string)
	if !ok || ours == nil {
		return false
	}
	want, err := resource.ParseQuantity(text)
	if err != nil {
		return false
	}
	got, err := resource.ParseQuantity(fmt.Sprint(ours))
	return err == nil && want.Cmp(got) == 0
}

// sentenceOf is the API server's message without the part that only says which
// object of which kind was refused.
func sentenceOf(err error) string {
	text := err.Error()
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		text = status.Status().Message
	}
	if _, after, ok := strings.Cut(text, "is invalid: "); ok {
		return after
	}
	return text
}
