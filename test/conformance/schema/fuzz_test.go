// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// fuzzSeed changes all generated cases; fuzzPerCase is how many are made of each
// accepted one.
const (
	fuzzSeed    = 1
	fuzzPerCase = 5
)

// fuzzCases breaks accepted cases at a random place each. What is made of a case
// follows from the seed and from the case's name alone, so that adding a case
// doesn't change the others' offspring.
func fuzzCases(made []testCase) []testCase {
	var out []testCase
	for _, one := range made {
		if one.want != accepted || one.change != nil || len(places("", map[string]any(one.object))) == 0 {
			continue
		}
		name := fnv.New64a()
		_, _ = name.Write([]byte(one.name))
		random := rand.New(rand.NewPCG(fuzzSeed, name.Sum64()))
		for range fuzzPerCase {
			object := one.object.copy()
			what := mutate(random, object)
			out = append(out, testCase{
				name:   "fuzz/" + strings.ReplaceAll(one.name, "/", " ") + ": " + what,
				object: object,
				before: one.before,
			})
		}
	}
	return out
}

// A place is a value inside an object and the way to replace it there.
type place struct {
	path  string
	value any
	set   func(any)
	drop  func()
}

// places lists every value below spec, data and so on, in a stable order. The
// type and the name stay, since they say where the request goes.
func places(prefix string, value any) []place {
	var out []place
	switch typed := value.(type) {
	case map[string]any:
		for _, key := range sortedKeys(typed) {
			path := join(prefix, key)
			if slices.Contains([]string{"apiVersion", "kind", "metadata", "metadata.name", "status"}, path) {
				if path == "metadata" {
					out = append(out, places(path, typed[key])...)
				}
				continue
			}
			out = append(out, place{path: path, value: typed[key],
				set: func(v any) { typed[key] = v }, drop: func() { delete(typed, key) }})
			out = append(out, places(path, typed[key])...)
		}
	case []any:
		for i := range typed {
			path := fmt.Sprintf("%s[%d]", prefix, i)
			out = append(out, place{path: path, value: typed[i], set: func(v any) { typed[i] = v }})
			out = append(out, places(path, typed[i])...)
		}
	}
	return out
}

// mutate breaks the object at one place and says how.
func mutate(random *rand.Rand, object manifest) string {
	all := places("", map[string]any(object))
	at := all[random.IntN(len(all))]
	var ways []string
	if at.drop != nil {
		ways = append(ways, "without")
	}
	switch at.value.(type) {
	case string:
		ways = append(ways, "empty", "a number as", "capitals in", "a space in", "a list as")
	case map[string]any:
		ways = append(ways, "a string as", "an unknown field in", "a list as")
	case []any:
		ways = append(ways, "a string as", "twice the first of", "empty")
	case bool:
		ways = append(ways, "a string as", "the contrary of")
	default:
		ways = append(ways, "a negative", "zero as", "a string as", "a huge")
	}
	way := ways[random.IntN(len(ways))]
	switch way {
	case "without":
		at.drop()
	case "empty":
		if _, ok := at.value.([]any); ok {
			at.set([]any{})
		} else {
			at.set("")
		}
	case "a number as":
		at.set(int64(7))
	case "a string as":
		at.set("seven")
	case "a list as":
		at.set([]any{"seven"})
	case "capitals in":
		at.set(strings.ToUpper(at.value.(string)))
	case "a space in":
		at.set(at.value.(string) + " x")
	case "an unknown field in":
		at.value.(map[string]any)["surprise"] = "x"
	case "twice the first of":
		if items := at.value.([]any); len(items) > 0 {
			at.set(append(slices.Clone(items), runtime.DeepCopyJSONValue(items[0])))
		}
	case "the contrary of":
		at.set(!at.value.(bool))
	case "a negative":
		at.set(int64(-1))
	case "zero as":
		at.set(int64(0))
	case "a huge":
		at.set(int64(1) << 40)
	}
	return way + " " + at.path
}
