// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"strings"
	"testing"
)

func TestFileValue(t *testing.T) {
	const file = `# settings
  COLOUR='dark blue' # a comment
EMPTY= 'left out'
LINES='one
two $HOME'

LAST='x'`
	for _, tc := range []struct {
		name, text, key, want string
		found                 bool
		err                   string
	}{
		{"a value with a blank", file, "COLOUR", "dark blue", true, ""},
		{"a blank after = is an empty value", file, "EMPTY", "", false, ""},
		{"several lines, nothing expanded", file, "LINES", "one\ntwo $HOME", true, ""},
		{"no newline at the end", file, "LAST", "x", true, ""},
		{"not there", file, "OTHER", "", false, ""},
		{"what comes after it doesn't matter", "A='1'\nbroken", "A", "1", true, ""},
		{"no equals sign", "broken", "A", "", false, `line 1 has no "="`},
		{"no value", "A=", "A", "", false, "line 1 has no value"},
		{"a blank before =", "A ='1'", "A", "", false, "a blank in it"},
		{"no name", "='1'", "A", "", false, "no name"},
		{"without quotes", "A=1", "A", "", false, "single quotes"},
		{"not closed", "\nA='1\n2", "A", "", false, "line 2: the single quote isn't closed"},
		{"something after the quote", "A='1'2", "A", "", false, "only a comment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			value, found, err := FileValue(tc.text, tc.key)
			if value != tc.want || found != tc.found || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %q, %v, %v", value, found, err)
			}
		})
	}
}
