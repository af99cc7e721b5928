// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzStreams holds for every input whatsoever: it is refused, or the output can be
// read again, has as many documents, and leads back to the input.
func FuzzStreams(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, seed := range seeds {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		for _, chunk := range split(data) {
			f.Add(chunk.data)
		}
	}
	f.Add([]byte("%YAML 1.2\n---\r\napiVersion: &a v1\nkind: Pod\n...\n\ufeff{\"kind\": *a}"))
	f.Add([]byte("apiVersion: 'v1'\rkind: \"Po\\x64\"\u2028<<: [{a: b}, {c: d}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		there, err := Streams([]Stream{{Name: "in", Data: data}}, ToPinnace)
		if err != nil {
			return
		}
		back, err := Streams([]Stream{{Name: "in", Data: there.Output}}, ToUpstream)
		if err != nil {
			t.Fatalf("the output can't be read: %v\n%q\n%q", err, data, there.Output)
		}
		if there.Documents != back.Documents {
			t.Fatalf("%d documents became %d\n%q\n%q", there.Documents, back.Documents, data, there.Output)
		}
		if there.Converted == 0 && !bytes.Equal(there.Output, data) {
			t.Fatalf("nothing was converted, but the bytes changed\n%q\n%q", data, there.Output)
		}
		if bytes.Contains(data, []byte("pinnace.dev")) || bytes.ContainsAny(data, `\*`) {
			return // Pinnace's own kinds come back as others; escapes and aliases only in meaning.
		}
		if !bytes.Equal(back.Output, data) {
			t.Fatalf("there and back is not the same\n%q\n%q\n%q", data, there.Output, back.Output)
		}
	})
}

// FuzzJoin holds for any two inputs: joined, they have the documents of both.
func FuzzJoin(f *testing.F) {
	parts := []string{
		"", "kind: A", "kind: A\r\nb: |+\r\n c\r\n\r\n", "---\n- a\n...\n", "# c\n%YAML 1.1\n---\na: b\n",
		"\ufeff{\"a\":1}{\"b\":2}", "{\"a\":1}\n", "{a: b}", "# c", "apiVersion: v1\nkind: Pod\n",
	}
	for _, a := range parts {
		for _, b := range parts {
			f.Add([]byte(a), []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		// Byte order marks in mid-stream are not worth a rule.
		if slices.ContainsFunc([][]byte{a, b}, func(data []byte) bool {
			return bytes.LastIndex(data, bomUTF8) > 0
		}) {
			return
		}
		streams := []Stream{{Name: "a", Data: a}, {Name: "b", Data: b}}
		joined, err := Streams(streams, ToPinnace)
		if err != nil {
			return
		}
		again, err := Streams([]Stream{{Name: "joined", Data: joined.Output}}, ToPinnace)
		if err != nil {
			t.Fatalf("the joined stream can't be read: %v\n%q", err, joined.Output)
		}
		if joined.Documents != again.Documents {
			t.Fatalf("%d documents became %d:\n%q", joined.Documents, again.Documents, joined.Output)
		}
	})
}
