// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// styles are ways to write the same three fields; %[1]s is the apiVersion,
// %[2]s the kind.
var styles = []string{
	"apiVersion: %[1]s\nkind: %[2]s\nmetadata:\n  name: a\n",
	"kind: %[2]s\n\n# why\napiVersion:    '%[1]s'  # 'quoted'\nmetadata: {name: a}\n",
	"metadata:\n    name: a\n    annotations:\n        text: |\n            apiVersion: %[1]s\n            kind: %[2]s\napiVersion: \"%[1]s\"\nkind: \"%[2]s\"\n",
	"{apiVersion: %[1]s, kind: %[2]s, metadata: {name: ü}}\n",
	"{\"metadata\": {\"name\": \"\\ud83d\\ude00\"}, \"kind\": \"%[2]s\", \"apiVersion\": \"%[1]s\"}\n",
	"apiVersion: >-\n  %[1]s\n\nkind: %[2]s\n",
	"\"apiVersion\": !!str %[1]s\n'kind' : &k %[2]s\nmetadata: {name: *k}\n",
	"apiVersion: v1\nkind: List\nitems:\n- apiVersion: %[1]s\n  kind: %[2]s\n-   {kind: '%[2]s', apiVersion: '%[1]s'}\n",
}

// markers stand between two documents.
var markers = []string{"---\n", "--- # comment\n", "---\n# comment\n\n", "# comment\n---\n", "---\n---\n", "...\n---\n", "...\n%YAML 1.2\n---\n"}

// TestStyles draws streams in every style: whatever the style, each upstream kind
// is converted, each other one is left and named, the values are the wanted ones
// at their places and nowhere else, and the way back leads to the same bytes.
func TestStyles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := suffix.Kinds()
		var in, want strings.Builder
		converted, left := 0, 0
		count := rapid.IntRange(1, 6).Draw(t, "documents")
		for i := range count {
			if i > 0 {
				marker := rapid.SampledFrom(markers).Draw(t, "marker")
				in.WriteString(marker)
				want.WriteString(marker)
			}
			style := rapid.SampledFrom(styles).Draw(t, "style")
			objects := 1
			if strings.Contains(style, "kind: List") {
				objects = 2
			}
			if rapid.IntRange(0, 4).Draw(t, "foreign") == 0 {
				text := fmt.Sprintf(style, "example.com/v1", "Pod")
				in.WriteString(text)
				want.WriteString(text)
				left += objects
				continue
			}
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			upstream, pinnace := kind.Upstream.GroupVersion().String(), kind.Pinnace.GroupVersion().String()
			text := fmt.Sprintf(style, upstream, kind.Upstream.Kind)
			in.WriteString(text)
			// The annotation is text and must stay.
			head, tail, isText := strings.Cut(fmt.Sprintf(style, pinnace, kind.Upstream.Kind), "            apiVersion: "+pinnace)
			if isText {
				head += "            apiVersion: " + upstream
			}
			want.WriteString(head + tail)
			converted += objects
		}
		input, output := in.String(), want.String()
		if rapid.Bool().Draw(t, "CR LF") {
			input, output = strings.ReplaceAll(input, "\n", "\r\n"), strings.ReplaceAll(output, "\n", "\r\n")
		}
		if rapid.Bool().Draw(t, "no newline at the end") {
			input, output = strings.TrimRight(input, "\r\n"), strings.TrimRight(output, "\r\n")
		}
		if rapid.Bool().Draw(t, "byte order mark") {
			input, output = "\ufeff"+input, "\ufeff"+output
		}
		there, err := Streams([]Stream{{Name: "in.yaml", Data: []byte(input)}}, ToPinnace)
		if err != nil {
			t.Fatalf("%v\n%s", err, input)
		}
		if diff := cmp.Diff(output, string(there.Output)); diff != "" {
			t.Fatalf("output (-want +got):\n%s\n%v", diff, there.Notes)
		}
		if there.Documents != count || there.Converted != converted || len(there.Notes) != left {
			t.Fatalf("%d documents, %d converted, notes %v; want %d, %d, %d notes", there.Documents, there.Converted, there.Notes, count, converted, left)
		}
		back, err := Streams([]Stream{{Name: "in.yaml", Data: there.Output}}, ToUpstream)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(input, string(back.Output)); diff != "" {
			t.Fatalf("there and back (-want +got):\n%s", diff)
		}
	})
}
