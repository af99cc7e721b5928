// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden converts each testdata/NAME.in.yaml and compares with NAME.want.yaml
// and NAME.notes; rewrite them with -update and read the difference.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no golden inputs: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			result, err := Streams([]Stream{{Name: name + ".yaml", Data: data}}, ToPinnace)
			if err != nil {
				t.Fatal(err)
			}
			var notes strings.Builder
			for _, note := range result.Notes {
				notes.WriteString(note.String() + "\n")
			}
			golden(t, "testdata/"+name+".want.yaml", string(result.Output))
			golden(t, "testdata/"+name+".notes", notes.String())
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// Bytes that golden files can't hold safely: byte order marks, line breaks of
// other systems, no newline at the end.
func TestBytes(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"blank", " \n\n", " \n\n"},
		{"comments only", "# a\n---\n# b\n", "# a\n---\n# b\n"},
		{"no newline at the end", "kind: Pod\napiVersion: v1", "kind: Pod\napiVersion: core.pinnace.dev/v1"},
		{"CR LF", "apiVersion: v1\r\nkind: Pod\r\n---\r\napiVersion: \"apps/v1\"\r\nkind: Deployment\r\n",
			"apiVersion: core.pinnace.dev/v1\r\nkind: Pod\r\n---\r\napiVersion: \"apps.pinnace.dev/v1\"\r\nkind: Deployment\r\n"},
		{"CR", "apiVersion: v1\rkind: Pod\r---\rkind: Pod\rapiVersion: v1\r",
			"apiVersion: core.pinnace.dev/v1\rkind: Pod\r---\rkind: Pod\rapiVersion: core.pinnace.dev/v1\r"},
		{"byte order mark", "\ufeffapiVersion: v1\nkind: Pod\n", "\ufeffapiVersion: core.pinnace.dev/v1\nkind: Pod\n"},
		{"byte order mark before a marker", "\ufeff---\napiVersion: v1\nkind: Pod\n", "\ufeff---\napiVersion: core.pinnace.dev/v1\nkind: Pod\n"},
		{"byte order mark before JSON", "\ufeff{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}", "\ufeff{\"apiVersion\":\"core.pinnace.dev/v1\",\"kind\":\"Pod\"}"},
		{"separators that only YAML breaks lines at", "metadata: {name: a}\u2028kind: Pod\u0085apiVersion: v1\n", "metadata: {name: a}\u2028kind: Pod\u0085apiVersion: core.pinnace.dev/v1\n"},
		{"directive", "%YAML 1.2\n%TAG ! tag:example.com,2000:\n---\napiVersion: v1\nkind: Pod\n...\n", "%YAML 1.2\n%TAG ! tag:example.com,2000:\n---\napiVersion: core.pinnace.dev/v1\nkind: Pod\n...\n"},
		{"document on the marker's line", "--- {apiVersion: v1, kind: Pod}\n--- {kind: Pod, apiVersion: v1}", "--- {apiVersion: core.pinnace.dev/v1, kind: Pod}\n--- {kind: Pod, apiVersion: core.pinnace.dev/v1}"},
		{"anchor, tag and comment before the value", "apiVersion: &a # why\n  !!str # not\n  v1 # indeed\nkind: Pod\n", "apiVersion: &a # why\n  !!str # not\n  core.pinnace.dev/v1 # indeed\nkind: Pod\n"},
		{"tabs in JSON", "{\n\t\"apiVersion\":\t\"apps\\/v1\",\n\t\"kind\": \"Deployment\"\n}\n", "{\n\t\"apiVersion\":\t\"apps.pinnace.dev/v1\",\n\t\"kind\": \"Deployment\"\n}\n"},
		{"JSON values in a row", `{"apiVersion":"v1","kind":"Pod"}{"kind":"Pod","apiVersion":"v1"}`, `{"apiVersion":"core.pinnace.dev/v1","kind":"Pod"}{"kind":"Pod","apiVersion":"core.pinnace.dev/v1"}`},
		{"marker in a block scalar, indented", "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n    apiVersion: v1\n    ---\n    kind: Pod\n", "apiVersion: core.pinnace.dev/v1\nkind: ConfigMap\ndata:\n  a: |\n    apiVersion: v1\n    ---\n    kind: Pod\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			result, err := Streams([]Stream{{Name: "in.yaml", Data: []byte(tc.in)}}, ToPinnace)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(result.Output)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(result.Notes) > 0 {
				t.Errorf("notes: %v", result.Notes)
			}
			back, err := Streams([]Stream{{Name: "in.yaml", Data: result.Output}}, ToUpstream)
			if err != nil {
				t.Fatal(err)
			}
			// Escapes are written anew, so that only their meaning comes back.
			if diff := cmp.Diff(strings.ReplaceAll(tc.in, `\/`, "/"), string(back.Output)); diff != "" {
				t.Errorf("there and back (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoteIsOneLine(t *testing.T) {
	in := "apiVersion: v1\nkind: Namespace\nmetadata: {name: \"a\\nb\\e[2J\"}\n---\napiVersion: |\n  v1\nkind: Pod\n"
	result, err := Streams([]Stream{{Name: "in.yaml", Data: []byte(in)}}, ToPinnace)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, note := range result.Notes {
		got = append(got, note.String())
	}
	if diff := cmp.Diff([]string{
		"in.yaml document 1: Namespace/a?b?[2J left as it is: Pinnace uses the API server's own Namespace.",
		`in.yaml document 2: left as it is: it is not a Kubernetes object: its apiVersion "v1\n" isn't written as group/version.`,
	}, got); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestReverse(t *testing.T) {
	in := "apiVersion: apps.pinnace.dev/v1\nkind: Deployment\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n---\n" +
		"apiVersion: apps.pinnace.dev/v1\nkind: Gadget\n---\napiVersion: example.com/v1\nkind: Thing\n"
	result, err := Streams([]Stream{{Name: "in.yaml", Data: []byte(in)}}, ToUpstream)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Replace(in, "apps.pinnace.dev/v1", "apps/v1", 1), string(result.Output)); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	var notes []string
	for _, note := range result.Notes {
		notes = append(notes, note.String())
	}
	if diff := cmp.Diff([]string{
		"in.yaml document 2: ServiceAccount/a left as it is: it is upstream's already (v1).",
		"in.yaml document 3: Gadget left as it is: Pinnace has no kind Gadget in apps.pinnace.dev/v1.",
		"in.yaml document 4: Thing left as it is: Pinnace carries no kind of the group example.com.",
	}, notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, tc := range []struct{ name, stream, in, want string }{
		{"a colon too many", "a.yaml", "kind: Pod\n---\n# c\napiVersion: v1\nkind: Pod: Pod\n", "a.yaml line 5: this is no valid YAML or JSON: mapping values are not allowed in this context; nothing was written"},
		{"indentation", "a.yaml", "kind: Pod\nspec:\n  a: 1\n b: 2\nc: 3\n", "a.yaml line 4: this is no valid YAML or JSON: did not find expected key; nothing was written"},
		{"a tab", "a.yaml", "kind: Pod\nspec:\n\ta: 1\n", "a.yaml line 3: this is no valid YAML or JSON: found character that cannot start any token; nothing was written"},
		{"an open quote", "a.yaml", "kind: Pod\nmetadata:\n  name: \"a\nspec: b\n", "a.yaml line 3: this is no valid YAML or JSON: found unexpected end of stream; nothing was written"},
		{"an anchor nobody set", "a.yaml", "kind: Pod\n\nspec: *a\n", "a.yaml line 3: this is no valid YAML or JSON: unknown anchor 'a' referenced; nothing was written"},
		{"JSON", "a.json", "{\n \"kind\": \"Pod\",\n \"a\" 1\n}\n", "a.json line 3: this is no valid YAML or JSON: invalid character '1' after object key; nothing was written"},
		{"JSON cut off", "a.json", "{\n \"kind\": \"Pod\",\n", "a.json line 2: this is no valid YAML or JSON: unexpected EOF; nothing was written"},
		{"not UTF-8", "a.yaml", "kind: Pod\nname: \xe4\n", "a.yaml line 2: this is no valid YAML or JSON: byte 0xe4 is no UTF-8: save it as UTF-8; nothing was written"},
		{"UTF-16", "a.yaml", "\xff\xfea\x00", "a.yaml line 1: this is no valid YAML or JSON: it is UTF-16 text: save it as UTF-8; nothing was written"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := Stream{Name: "good.yaml", Data: []byte("apiVersion: v1\nkind: Pod\n")}
			result, err := Streams([]Stream{good, {Name: tc.stream, Data: []byte(tc.in)}}, ToPinnace)
			if err == nil || result != nil {
				t.Fatalf("got %+v, %v", result, err)
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A template is left alone as a whole, whether or not YAML happens to read it.
func TestTemplates(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"an action on a line", "apiVersion: v1\nkind: Pod\n---\n{{- if .Values.x }}\napiVersion: apps/v1\nkind: Deployment\n{{- end }}\n", "left as it is: it is a Helm or Go template ({{ at line 4): convert what `helm template` prints (as YAML it can't be read: line "},
		{"an action as a value", "apiVersion: v1\nkind: Pod\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\n", "left as it is: it is a Helm or Go template ({{ at line 7): convert what `helm template` prints."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			result, err := Streams([]Stream{{Name: "t.yaml", Data: []byte(tc.in)}}, ToPinnace)
			if err != nil {
				t.Fatal(err)
			}
			if string(result.Output) != tc.in || result.Converted != 0 || result.Documents != 2 {
				t.Errorf("converted %d of %d:\n%s", result.Converted, result.Documents, result.Output)
			}
			if len(result.Notes) != 1 || !strings.HasPrefix(result.Notes[0].Text, tc.want) || result.Notes[0].Document != 0 {
				t.Errorf("notes: %v", result.Notes)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\n"
	for _, tc := range []struct {
		name string
		in   []string
		want string
	}{
		{"two files", []string{"kind: A\n", "kind: B\n"}, "kind: A\n---\nkind: B\n"},
		{"a marker is there", []string{"kind: A\n", "---\nkind: B\n"}, "kind: A\n---\nkind: B\n"},
		{"no newline at the end", []string{"kind: A", "# b\n---\nkind: B"}, "kind: A\n---\n# b\n---\nkind: B"},
		{"CR LF", []string{"kind: A\r\nb: c", "kind: B\n"}, "kind: A\r\nb: c\r\n---\r\nkind: B\n"},
		{"an empty file", []string{"", "kind: A\n", "", "kind: B\n"}, "kind: A\n---\nkind: B\n"},
		{"a byte order mark", []string{"\ufeffkind: A\n", "\ufeff---\nkind: B\n"}, "\ufeffkind: A\n---\nkind: B\n"},
		{"directives", []string{"kind: A\n", "# c\n%YAML 1.1\n---\nkind: B\n"}, "kind: A\n...\n# c\n%YAML 1.1\n---\nkind: B\n"},
		{"a scalar that keeps what follows", []string{"kind: A\nb: |+\n  c\n", "\n\nkind: B\n"}, "kind: A\nb: |+\n  c\n---\n\n\nkind: B\n"},
		{"JSON alone", []string{`{"kind":"A"}`, "{\"kind\":\"B\"}\n{}"}, "{\"kind\":\"A\"}\n{\"kind\":\"B\"}\n{}"},
		{"JSON among YAML", []string{"kind: A", "\ufeff{\"kind\":\"B\"} {\"kind\":\"C\"}\n", "kind: D\n"}, "kind: A\n---\n{\"kind\":\"B\"} \n---\n{\"kind\":\"C\"}\n---\nkind: D\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var streams []Stream
			for _, in := range tc.in {
				streams = append(streams, Stream{Name: "in", Data: []byte(in)})
			}
			result, err := Streams(streams, ToPinnace)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(result.Output)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	result, err := Streams([]Stream{{Name: "a", Data: []byte(pod)}, {Name: "b", Data: []byte(pod)}}, ToPinnace)
	if err != nil || result.Documents != 2 || result.Converted != 2 {
		t.Errorf("got %+v, %v", result, err)
	}
}
