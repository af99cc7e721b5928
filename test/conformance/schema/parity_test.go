// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite this room's part of docs/parity.md")

const (
	parityFile  = "../../../docs/parity.md"
	parityBegin = "<!-- Begin: made from test/conformance/schema/differences.yaml; don't edit between the marks. -->\n"
	parityEnd   = "<!-- End: made from test/conformance/schema/differences.yaml. -->\n"
)

// TestParity holds docs/parity.md equal to what the oracle knows.
func TestParity(t *testing.T) {
	differences, err := loadDifferences(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	want := parityPart(differences)
	content, err := os.ReadFile(parityFile)
	if *update && (errors.Is(err, fs.ErrNotExist) || err == nil && !strings.Contains(string(content), parityBegin)) {
		content, err = append(content, "\n## Schemas and defaults\n\n"+parityBegin+parityEnd...), nil
	}
	if err != nil {
		t.Fatalf("reading docs/parity.md, which 'go test ./test/conformance/schema -run TestParity -update' makes: %v", err)
	}
	before, rest, begun := strings.Cut(string(content), parityBegin)
	got, after, ended := strings.Cut(rest, parityEnd)
	if !begun || !ended {
		t.Fatal("docs/parity.md has lost the marks of the schema oracle's part; '-update' appends them anew.")
	}
	if *update {
		if err := os.WriteFile(parityFile, []byte(strings.TrimPrefix(before, "\n")+parityBegin+want+parityEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/parity.md isn't what differences.yaml says; run 'go test ./test/conformance/schema -run TestParity -update' (-want +got):\n%s", diff)
	}
}

// parityPart is the oracle's part of docs/parity.md.
func parityPart(differences []*difference) string {
	var out strings.Builder
	fmt.Fprintf(&out, `
The schema oracle (`+"`make oracle-schema`"+`) sends each manifest to upstream's kind and to Pinnace's on one API server and compares
the verdict and the object that comes back. It fails on any difference that isn't in this list, and on one that is no longer true.

| Difference | Kinds | Why |
|---|---|---|
`)
	for _, d := range differences {
		kinds := strings.Join(d.Kinds, ", ")
		if kinds == "" {
			kinds = "all"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", d.ID, kinds, strings.ReplaceAll(d.Reason, "|", `\|`))
	}
	out.WriteString("\nNot compared, because nobody can tell the difference:\n\n")
	for _, n := range normalisations {
		fmt.Fprintf(&out, "- %s: %s\n", n.what, n.reason)
	}
	out.WriteString("\n")
	return out.String()
}
