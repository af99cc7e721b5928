// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"testing"

	"github.com/pinnace-dev/pinnace/test/conformance/parity"
)

// TestParity holds docs/parity.md equal to what the oracle knows.
func TestParity(t *testing.T) {
	differences, err := loadDifferences(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	part := parity.Part{Room: "schema", Title: "Schemas and defaults", Scope: "Kinds", Blind: "Not compared, because nobody can tell the difference:", Intro: `
The schema oracle (` + "`make oracle-schema`" + `) sends each manifest to upstream's kind and to Pinnace's on one API server and compares
the verdict and the object that comes back. It fails on any difference that isn't in this list, and on one that is no longer true.
`}
	for _, d := range differences {
		part.Differences = append(part.Differences, parity.Difference{ID: d.ID, Scope: d.Kinds, Reason: d.Reason})
	}
	for _, n := range normalisations {
		part.Normalisations = append(part.Normalisations, parity.Normalisation{What: n.what, Reason: n.reason})
	}
	part.Check(t)
}
