// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package crilog

import (
	"bytes"
	"fmt"
	"time"
)

// timeLayout is how times are printed with Timestamps: of one width, as kubectl's users know it.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// line is one line of a log file.
type line struct {
	at     time.Time
	stderr bool
	// partial says that the text goes on in the stream's next line.
	partial bool
	text    []byte
}

// parseLine reads a line with or without its end.
func parseLine(raw []byte) (line, error) {
	raw = bytes.TrimSuffix(raw, []byte("\n"))
	stamp, rest, ok1 := bytes.Cut(raw, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, _ := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 {
		return line{}, fmt.Errorf("%.40q is no line of a container's log", raw)
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return line{}, fmt.Errorf("%.40q is no line of a container's log: %w", raw, err)
	}
	l := line{at: at, text: text}
	switch string(stream) {
	case "stdout":
	case "stderr":
		l.stderr = true
	default:
		return line{}, fmt.Errorf("%.40q is of no stream of a container", raw)
	}
	// Tags may be more than one, separated by colons; the first says whether the line is whole.
	first, _, _ := bytes.Cut(tags, []byte(":"))
	l.partial = string(first) == "P"
	return l, nil
}
