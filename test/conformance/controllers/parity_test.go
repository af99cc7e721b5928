// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

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
	part := parity.Part{Room: "controllers", Title: "Controllers", Scope: "Scenarios", Blind: "Not compared, or by its role alone:", Intro: `
The controller oracle (` + "`make oracle-controllers`" + `) runs each scenario (scale, update, fail a pod, cordon a node, …) once on upstream's kinds, under
kube-controller-manager and kube-scheduler, and once on Pinnace's, and compares the final states. It fails on any difference that isn't in this list, and on one
that is no longer true; and when Pinnace breaks a rule on the way, such as the availability bound of a rollout.
`}
	for _, d := range differences {
		part.Differences = append(part.Differences, parity.Difference{ID: d.ID, Scope: d.Scenarios, Reason: d.Reason})
	}
	for _, n := range normalisations {
		part.Normalisations = append(part.Normalisations, parity.Normalisation{What: n.what, Reason: n.reason})
	}
	part.Check(t)
}
