// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package parity holds the parts of docs/parity.md that are made from what the oracles know, each between two marks, and keeps them equal
// to it. The oracles' tests enter.
package parity

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite this room's part of docs/parity.md")

// file is seen from a room of test/conformance.
const file = "../../../docs/parity.md"

// Part is one oracle's part of docs/parity.md.
type Part struct {
	// Room is the oracle's folder in test/conformance, Title the heading over its part.
	Room, Title string
	// Intro says how the oracle judges.
	Intro string
	// Scope heads the column that says what each difference is about.
	Scope       string
	Differences []Difference
	// Blind introduces Normalisations.
	Blind          string
	Normalisations []Normalisation
}

// Difference is one line of the table.
type Difference struct {
	ID string
	// Scope is what it is about; all if empty.
	Scope  []string
	Reason string
}

// Normalisation is what the oracle doesn't compare.
type Normalisation struct{ What, Reason string }

// Check fails unless docs/parity.md holds the part as it is; with -update it writes the part there.
func (p Part) Check(t *testing.T) {
	t.Helper()
	begin := fmt.Sprintf("<!-- Begin: made from test/conformance/%s/differences.yaml; don't edit between the marks. -->\n", p.Room)
	end := fmt.Sprintf("<!-- End: made from test/conformance/%s/differences.yaml. -->\n", p.Room)
	read, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content := string(read)
	if *update && !strings.Contains(content, begin) {
		content += "\n## " + p.Title + "\n\n" + begin + end
	}
	before, rest, begun := strings.Cut(content, begin)
	got, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("docs/parity.md has lost the marks of %s; '-update' appends them anew.", p.Room)
	}
	want := p.text()
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/parity.md isn't what differences.yaml says; run 'go test ./test/conformance/%s -run TestParity -update' (-want +got):\n%s", p.Room, diff)
	}
}

func (p Part) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "\n%s\n\n| Difference | %s | Why |\n|---|---|---|\n", strings.TrimSpace(p.Intro), p.Scope)
	for _, d := range p.Differences {
		scope := strings.Join(d.Scope, ", ")
		if scope == "" {
			scope = "all"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", d.ID, scope, strings.ReplaceAll(d.Reason, "|", `\|`))
	}
	fmt.Fprintf(&out, "\n%s\n\n", p.Blind)
	for _, n := range p.Normalisations {
		fmt.Fprintf(&out, "- %s: %s\n", n.What, n.Reason)
	}
	out.WriteString("\n")
	return out.String()
}
