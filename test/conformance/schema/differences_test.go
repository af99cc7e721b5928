// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const differencesFile = "differences.yaml"

// difference is an entry of differences.yaml: a class of cases in which Pinnace
// doesn't do what upstream does, and why. Either field or verdict is set.
type difference struct {
	// ID names the class.
	ID string `json:"id"`
	// Reason is the sentence that stands in docs/parity.md.
	Reason string `json:"reason"`
	// Kinds are the kinds it is about; all if empty.
	Kinds []string `json:"kinds,omitempty"`
	// Field is a regular expression over the whole path of a field that differs
	// in the defaulted object, such as `.*\.imagePullPolicy`.
	Field string `json:"field,omitempty"`
	// Verdict is Pinnace's verdict, where upstream says the other.
	Verdict verdict `json:"verdict,omitempty"`
	// Cases are the names of the cases, with * for any text but a slash; all if empty.
	Cases []string `json:"cases,omitempty"`
	// Sentence is a regular expression that is found in the sentence of the side that refused.
	Sentence string `json:"sentence,omitempty"`

	field, sentence *regexp.Regexp
	// seen counts the cases in which it occurred.
	seen int
}

func loadDifferences(file string) ([]*difference, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []*difference
	if err := yaml.UnmarshalStrict(content, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	ids := map[string]bool{}
	for _, d := range out {
		if d.ID == "" || ids[d.ID] {
			return nil, fmt.Errorf("%s: the id %q is empty or stands there twice", file, d.ID)
		}
		ids[d.ID] = true
		if len(d.Reason) < 20 {
			return nil, fmt.Errorf("%s: %s has no reason", file, d.ID)
		}
		if (d.Field == "") == (d.Verdict == "") {
			return nil, fmt.Errorf("%s: %s needs either field or verdict", file, d.ID)
		}
		if d.Verdict != "" && len(d.Cases) == 0 && d.Sentence == "" {
			return nil, fmt.Errorf("%s: %s would cover every %s manifest: name cases or a sentence", file, d.ID, d.Verdict)
		}
		if d.field, err = regexp.Compile("^(?:" + d.Field + ")$"); err != nil {
			return nil, fmt.Errorf("%s: %s: field: %w", file, d.ID, err)
		}
		if d.sentence, err = regexp.Compile(d.Sentence); err != nil {
			return nil, fmt.Errorf("%s: %s: sentence: %w", file, d.ID, err)
		}
	}
	return out, nil
}

// covers tells whether the entry is about this case at all.
func (d *difference) covers(one testCase) bool {
	if len(d.Kinds) > 0 && !slices.Contains(d.Kinds, one.object.gvk().Kind) {
		return false
	}
	if len(d.Cases) == 0 {
		return true
	}
	return slices.ContainsFunc(d.Cases, func(pattern string) bool {
		// A name may hold brackets, which mean something else to path.Match.
		pattern = strings.NewReplacer("[", `\[`, "]", `\]`).Replace(pattern)
		ok, err := path.Match(pattern, one.name)
		return ok && err == nil
	})
}

func (d *difference) coversField(one testCase, field fieldDifference) bool {
	return d.Field != "" && d.covers(one) && d.field.MatchString(field.path)
}

func (d *difference) coversVerdict(one testCase, native, ours answer) bool {
	return d.Verdict == ours.verdict && d.covers(one) && d.sentence.MatchString(native.sentence+ours.sentence)
}
