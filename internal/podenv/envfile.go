// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podenv

import (
	"fmt"
	"strings"
)

// FileValue finds a variable in a file of lines NAME='value', the part of the shell's syntax that upstream takes for
// env.valueFrom.fileKeyRef (pkg/kubelet/util/env): values stand in single quotes and are taken as they are, over several lines
// too; a comment may follow. The first one of that name counts, and what comes after it isn't looked at. A value that a blank parts from
// its "=" is empty. found is false when the name isn't there or is empty.
func FileValue(text, name string) (value string, found bool, err error) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(strings.TrimSuffix(lines[i], "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, rest, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return "", false, fmt.Errorf("line %d has no \"=\": write NAME='value'", i+1)
		case key == "" || strings.ContainsAny(key, " \t"):
			return "", false, fmt.Errorf("line %d has no name, or a blank in it, before \"=\": write NAME='value'", i+1)
		case rest == "" || rest[0] == ' ' || rest[0] == '\t':
			if rest == "" {
				return "", false, fmt.Errorf("line %d has no value: write %s='value'", i+1, key)
			}
			if key == name {
				return "", false, nil
			}
			continue
		case rest[0] != '\'':
			return "", false, fmt.Errorf("line %d: the value must stand in single quotes: write %s='value'", i+1, key)
		}
		began := i
		quoted := rest[1:]
		for !strings.Contains(quoted, "'") {
			if i++; i == len(lines) {
				return "", false, fmt.Errorf("line %d: the single quote isn't closed", began+1)
			}
			quoted += "\n" + lines[i]
		}
		quoted, after, _ := strings.Cut(quoted, "'")
		if after = strings.TrimSpace(after); after != "" && after[0] != '#' {
			return "", false, fmt.Errorf("line %d: only a comment may follow the closing quote", i+1)
		}
		if key == name {
			return quoted, quoted != "", nil
		}
	}
	return "", false, nil
}
