// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

// compare returns the places where two states differ, a line each. Of an object that only one side has, it names the object
// alone.
func compare(native, ours state) []string {
	var out []string
	one := func(key string) {
		a, b := native[key], ours[key]
		if a != b {
			out = append(out, fmt.Sprintf("%s: upstream has %s, ours has %s", key, shown(a), shown(b)))
		}
	}
	for key := range union(native, ours) {
		role, _, field := strings.Cut(key, ": ")
		if field && (native[role] == "") != (ours[role] == "") {
			continue
		}
		one(key)
	}
	sort.Strings(out)
	return out
}

func union(a, b state) map[string]bool {
	out := map[string]bool{}
	for key := range a {
		out[key] = true
	}
	for key := range b {
		out[key] = true
	}
	return out
}

func shown(value string) string {
	if value == "" {
		return "nothing"
	}
	return fmt.Sprintf("%q", value)
}

const differencesFile = "differences.yaml"

// difference is an entry of differences.yaml: where Pinnace doesn't do what upstream does, and why.
type difference struct {
	// ID names it.
	ID string `json:"id"`
	// Reason is the sentence that stands in docs/parity.md.
	Reason string `json:"reason"`
	// Scenarios are names of scenarios, with * for any text but a slash; all if empty.
	Scenarios []string `json:"scenarios,omitempty"`
	// Line is a regular expression over the whole line that says what differs.
	Line string `json:"line"`

	line *regexp.Regexp
	// seen counts the scenarios in which it occurred.
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
		if d.Line == "" {
			return nil, fmt.Errorf("%s: %s needs a line", file, d.ID)
		}
		if d.line, err = regexp.Compile("^(?:" + d.Line + ")$"); err != nil {
			return nil, fmt.Errorf("%s: %s: line: %w", file, d.ID, err)
		}
	}
	return out, nil
}

func (d *difference) covers(scenario, line string) bool {
	named := len(d.Scenarios) == 0 || slices.ContainsFunc(d.Scenarios, func(pattern string) bool {
		ok, err := path.Match(pattern, scenario)
		return ok && err == nil
	})
	return named && d.line.MatchString(line)
}

// judge parts the lines into listed differences, by their ids, and unlisted ones.
func judge(scenario string, lines []string, differences []*difference) (listed, unlisted []string) {
	for _, line := range lines {
		i := slices.IndexFunc(differences, func(d *difference) bool { return d.covers(scenario, line) })
		if i < 0 {
			unlisted = append(unlisted, line)
		} else if id := differences[i].ID; !slices.Contains(listed, id) {
			listed = append(listed, id)
		}
	}
	return listed, unlisted
}
