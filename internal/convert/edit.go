// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"slices"
)

// edit replaces a scalar's value by another one.
type edit struct {
	// node is the scalar, or an alias that stands for it.
	node *node
	// path is where the value stands in the object, for verify.
	path string
	to   string
}

// patch replaces the bytes from start to end.
type patch struct {
	start, end int
	text       string
}

// apply returns the chunk with the edits made. It returns false where a value
// isn't written where the parser says, or where two edits want different
// values in one place; the caller leaves the document alone then.
func apply(data []byte, edits []edit) ([]byte, bool) {
	wanted := map[*node]string{}
	for _, e := range edits {
		if before, ok := wanted[e.node]; ok && before != e.to {
			return nil, false
		}
		wanted[e.node] = e.to
	}
	var patches []patch
	for n, to := range wanted {
		if n.kind == alias && wanted[n.target] == to {
			continue // the anchor changes, and the alias with it
		}
		p, ok := replace(data, n, to)
		if !ok {
			return nil, false
		}
		patches = append(patches, p)
	}
	slices.SortFunc(patches, func(a, b patch) int { return a.start - b.start })
	var out bytes.Buffer
	at := 0
	for _, p := range patches {
		if p.start < at {
			return nil, false
		}
		out.Write(data[at:p.start])
		out.WriteString(p.text)
		at = p.end
	}
	out.Write(data[at:])
	return out.Bytes(), true
}

// replace finds the bytes of a scalar's value and returns the patch that puts
// another value there in the same style. The new value is an apiVersion or a
// group, which no style has to escape.
func replace(data []byte, n *node, to string) (patch, bool) {
	at := skipProperties(data, n.at)
	if at < 0 || at >= len(data) {
		return patch{}, false
	}
	rest := data[at:]
	switch {
	case n.kind == alias:
		if !bytes.HasPrefix(rest, []byte("*"+n.text)) {
			return patch{}, false
		}
		return patch{at, at + 1 + len(n.text), to}, true
	case rest[0] == '\'' || rest[0] == '"':
		quote := rest[:1]
		if value, ok := bytes.CutPrefix(rest[1:], []byte(n.text)); ok && bytes.HasPrefix(value, quote) {
			return patch{at + 1, at + 1 + len(n.text), to}, true
		}
		// Escapes stand in it, so that it is written anew.
		end := quotedEnd(rest)
		return patch{at, at + end, string(quote) + to + string(quote)}, end > 0
	case rest[0] == '|' || rest[0] == '>':
		header := lineEnd(data, at)
		blank := len(data[header:]) - len(bytes.TrimLeft(data[header:], " \r\n"))
		at = header + blank
	}
	if n.text == "" || !bytes.HasPrefix(data[at:], []byte(n.text)) {
		return patch{}, false
	}
	return patch{at, at + len(n.text), to}, true
}

// skipProperties returns the offset behind the anchor and the tag that stand
// before a value, and the blanks, line breaks and comments between them.
func skipProperties(data []byte, at int) int {
	if at < 0 {
		return -1
	}
	for at < len(data) {
		switch data[at] {
		case ' ', '\t', '\r', '\n':
			at++
		case '#':
			at = lineEnd(data, at)
		case '&', '!':
			for at < len(data) && bytes.IndexByte([]byte(" \t\r\n"), data[at]) < 0 {
				at++
			}
		default:
			return at
		}
	}
	return at
}

// quotedEnd returns the offset behind the closing quote of a quoted scalar, or
// 0 where there is none.
func quotedEnd(text []byte) int {
	quote := text[0]
	for at := 1; at < len(text); at++ {
		switch {
		case quote == '"' && text[at] == '\\':
			at++
		case text[at] == quote && quote == '\'' && at+1 < len(text) && text[at+1] == quote:
			at++
		case text[at] == quote:
			return at + 1
		}
	}
	return 0
}
