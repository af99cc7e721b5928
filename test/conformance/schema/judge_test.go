// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestJudge shows that the oracle can fail: on a difference that isn't listed,
// and on a case that is about something else than it says.
func TestJudge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "differences.yaml")
	if err := os.WriteFile(file, []byte(`
- {id: listed-field, kinds: [Pod], field: 'spec\.listed', reason: It is here for the test.}
- {id: listed-verdict, verdict: refused, cases: ["group/*"], sentence: too odd, reason: It is here for the test.}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := func(spec map[string]any) manifest { return manifest{"kind": "Pod", "spec": spec} }
	yes := func(spec map[string]any) answer { return answer{verdict: accepted, object: pod(spec)} }
	no := func(sentence string) answer { return answer{verdict: refused, sentence: sentence} }
	one := testCase{name: "group/case", object: pod(nil)}
	for name, tc := range map[string]struct {
		given                  outcome
		wantListed             []string
		wantUnlisted, wantSeen int
		wantFault              bool
	}{
		"both accept, nothing differs": {given: outcome{one: one, native: yes(nil), ours: yes(nil)}},
		"both refuse":                  {given: outcome{one: one, native: no("a"), ours: no("b")}},
		"a listed field":               {given: outcome{one: one, native: yes(map[string]any{"listed": "x"}), ours: yes(nil)}, wantListed: []string{"listed-field"}, wantSeen: 1},
		"another field":                {given: outcome{one: one, native: yes(map[string]any{"listedNot": "x"}), ours: yes(nil)}, wantUnlisted: 1},
		"a listed verdict":             {given: outcome{one: one, native: yes(nil), ours: no("this is too odd")}, wantListed: []string{"listed-verdict"}, wantSeen: 1},
		"another sentence":             {given: outcome{one: one, native: yes(nil), ours: no("no")}, wantUnlisted: 1},
		"the contrary verdict":         {given: outcome{one: one, native: no("this is too odd"), ours: yes(nil)}, wantUnlisted: 1},
		"not what the case says":       {given: outcome{one: testCase{object: pod(nil), want: refused}, native: yes(nil), ours: yes(nil)}, wantFault: true},
	} {
		t.Run(name, func(t *testing.T) {
			differences, err := loadDifferences(file)
			if err != nil {
				t.Fatal(err)
			}
			judge(&tc.given, differences)
			seen := 0
			for _, d := range differences {
				seen += d.seen
			}
			if diff := cmp.Diff(tc.wantListed, tc.given.listed); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}
			if len(tc.given.unlisted) != tc.wantUnlisted || seen != tc.wantSeen || (tc.given.fault != "") != tc.wantFault {
				t.Errorf("unlisted %v, seen %d, fault %q; want %d, %d, %v", tc.given.unlisted, seen, tc.given.fault, tc.wantUnlisted, tc.wantSeen, tc.wantFault)
			}
		})
	}
}

// TestCompare shows what counts as a difference between two objects.
func TestCompare(t *testing.T) {
	for name, tc := range map[string]struct {
		native, ours any
		want         int
	}{
		"equal":                           {"a", "a", 0},
		"another value":                   {"a", "b", 1},
		"a default that ours lacks":       {false, nil, 1},
		"a zero that upstream drops":      {nil, false, 0},
		"a mapping that upstream adds":    {map[string]any{}, nil, 0},
		"a value in a mapping it adds":    {map[string]any{"a": "b"}, nil, 1},
		"a quantity in another spelling":  {"1", "1000m", 0},
		"a quantity as a number":          {"2", int64(2), 0},
		"another quantity":                {"1", "100m", 1},
		"a list in another order":         {[]any{"a", "b"}, []any{"b", "a"}, 2},
		"a list that is shorter":          {[]any{"a", "b"}, []any{"a"}, 1},
		"a default that upstream doesn't": {nil, "a", 1},
	} {
		t.Run(name, func(t *testing.T) {
			object := func(value any) manifest {
				if value == nil {
					return manifest{"spec": map[string]any{"other": "x"}}
				}
				return manifest{"spec": map[string]any{"other": "x", "field": value}}
			}
			if got := compareObjects(object(tc.native), object(tc.ours)); len(got) != tc.want {
				t.Errorf("got %v, want %d differences", got, tc.want)
			}
		})
	}
}

func TestEdits(t *testing.T) {
	base := manifest{"spec": map[string]any{"a": "x", "list": []any{map[string]any{"n": "1"}, map[string]any{"n": "2"}}}}
	for name, tc := range map[string]struct {
		edits edits
		want  map[string]any // the spec; nil says that the edit is refused
	}{
		"nothing":          {edits{}, map[string]any{"a": "x", "list": []any{map[string]any{"n": "1"}, map[string]any{"n": "2"}}}},
		"a field":          {edits{"spec.a": "y", "spec.list": nil}, map[string]any{"a": "y"}},
		"a dotted key":     {edits{"spec.m[a.b/c]": "d", "spec.list": nil}, map[string]any{"a": "x", "m": map[string]any{"a.b/c": "d"}}},
		"an item":          {edits{"spec.list[1].n": "3"}, map[string]any{"a": "x", "list": []any{map[string]any{"n": "1"}, map[string]any{"n": "3"}}}},
		"an item less":     {edits{"spec.list[0]": nil}, map[string]any{"a": "x", "list": []any{map[string]any{"n": "2"}}}},
		"an item more":     {edits{"spec.list[+].n": "3"}, map[string]any{"a": "x", "list": []any{map[string]any{"n": "1"}, map[string]any{"n": "2"}, map[string]any{"n": "3"}}}},
		"beyond the list":  {edits{"spec.list[5]": "x"}, nil},
		"into a string":    {edits{"spec.a.b": "x"}, nil},
		"an open bracket":  {edits{"spec[a": "x"}, nil},
		"an index of none": {edits{"spec.a[0]": "x"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.edits.apply(base)
			if (err != nil) != (tc.want == nil) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tc.want, got["spec"]); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}
