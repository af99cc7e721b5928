// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite this room's part of docs/parity.md")

const (
	parityFile  = "../../../docs/parity.md"
	parityBegin = "<!-- Begin: made from test/conformance/controllers/differences.yaml; don't edit between the marks. -->\n"
	parityEnd   = "<!-- End: made from test/conformance/controllers/differences.yaml. -->\n"
)

// TestParity holds docs/parity.md equal to what the oracle knows.
func TestParity(t *testing.T) {
	differences, err := loadDifferences(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	want := parityPart(differences)
	content, err := os.ReadFile(parityFile)
	if err != nil {
		t.Fatal(err)
	}
	if *update && !strings.Contains(string(content), parityBegin) {
		content = append(content, "\n## Controllers\n\n"+parityBegin+parityEnd...)
	}
	before, rest, begun := strings.Cut(string(content), parityBegin)
	got, after, ended := strings.Cut(rest, parityEnd)
	if !begun || !ended {
		t.Fatal("docs/parity.md has lost the marks of the controller oracle's part; '-update' appends them anew.")
	}
	if *update {
		if err := os.WriteFile(parityFile, []byte(before+parityBegin+want+parityEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/parity.md isn't what differences.yaml says; run 'go test ./test/conformance/controllers -run TestParity -update' (-want +got):\n%s", diff)
	}
}

// parityPart is the oracle's part of docs/parity.md.
func parityPart(differences []*difference) string {
	var out strings.Builder
	fmt.Fprintf(&out, `
The controller oracle (`+"`make oracle-controllers`"+`) runs each scenario (scale, update, fail a pod, cordon a node, …) once on upstream's kinds, under
kube-controller-manager and kube-scheduler, and once on Pinnace's, and compares the final states. It fails on any difference that isn't in this list, and on one
that is no longer true; and when Pinnace breaks a rule on the way, such as the availability bound of a rollout.

| Difference | Scenarios | Why |
|---|---|---|
`)
	for _, d := range differences {
		names := strings.Join(d.Scenarios, ", ")
		if names == "" {
			names = "all"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", d.ID, names, strings.ReplaceAll(d.Reason, "|", `\|`))
	}
	out.WriteString("\nNot compared, or by its role alone:\n\n")
	for _, n := range normalisations {
		fmt.Fprintf(&out, "- %s: %s\n", n.what, n.reason)
	}
	out.WriteString("\n")
	return out.String()
}
