// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"slices"
	"strings"
	"time"
)

// LogPolicy says when logs are rotated; the kubelet's containerLogMaxSize and containerLogMaxFiles.
type LogPolicy struct {
	// MaxSize in bytes of a log before it is rotated; 0: 10 MiB, negative: no rotation.
	MaxSize int64
	// MaxFiles of one container, the one that is written to among them; 0: five, at least two.
	MaxFiles int
}

func (p LogPolicy) withDefaults() LogPolicy {
	if p.MaxSize == 0 {
		p.MaxSize = 10 << 20
	}
	if p.MaxFiles == 0 {
		p.MaxFiles = 5
	}
	p.MaxFiles = max(p.MaxFiles, 2)
	return p
}

const (
	rotatedTime = "20060102-150405"
	compressed  = ".gz"
	unfinished  = ".tmp"
)

// rotation is what to do with the files of one log, in this order. All are names within its folder.
type rotation struct {
	remove, compress []string
	// rotated is the name that the log itself gets.
	rotated string
}

// planRotation decides for a log that is too big, from the names of the files in its folder. The newest rotated file stays
// uncompressed, since whoever follows the log may still read it.
func planRotation(log string, names []string, policy LogPolicy, now time.Time) rotation {
	r := rotation{rotated: log + "." + now.UTC().Format(rotatedTime)}
	var old []string
	for _, name := range names {
		switch {
		case !strings.HasPrefix(name, log+"."):
		case strings.HasSuffix(name, unfinished), slices.Contains(names, name+compressed):
			// A compression that was cut short: before or after its result got its name.
			r.remove = append(r.remove, name)
		default:
			old = append(old, name)
		}
	}
	slices.Sort(old) // Times sort as text, so this is by age.
	// The log itself becomes a rotated one, and a new one takes its place.
	excess := max(len(old)-(policy.MaxFiles-2), 0)
	r.remove = append(r.remove, old[:excess]...)
	for _, name := range old[excess:] {
		if !strings.HasSuffix(name, compressed) {
			r.compress = append(r.compress, name)
		}
	}
	return r
}
