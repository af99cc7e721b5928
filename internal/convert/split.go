// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"unicode/utf8"
)

var (
	bomUTF8    = []byte("\xef\xbb\xbf")
	bomUTF16LE = []byte("\xff\xfe")
	bomUTF16BE = []byte("\xfe\xff")
)

// chunk is the part of a stream that holds one YAML document, with the
// directives, the comments and the marker before it; or several JSON values
// that follow one another. All chunks of a stream, one after the other, are
// the stream.
type chunk struct {
	data []byte
	// line is the number of the chunk's first line in the stream, from 1.
	line int
	// directives tells whether lines such as "%YAML 1.2" stand before the document.
	directives bool
	// open tells whether a document is still going on at the chunk's end: it has
	// begun, and no "..." has ended it.
	open bool
}

// split cuts a stream at its document markers. YAML allows no "---" or "..." at
// the start of a line inside a document, not even in a block scalar or in
// quotes, so that no parser is needed for it; and one document that can't be
// parsed doesn't hide where the others are.
func split(data []byte) []chunk {
	var chunks []chunk
	current := chunk{line: 1}
	start, line := 0, 1
	cut := func(at, nextLine int) {
		if at > start {
			current.data = data[start:at]
			chunks = append(chunks, current)
		}
		start, current = at, chunk{line: nextLine}
	}
	for at := 0; at < len(data); line++ {
		end := lineEnd(data, at)
		text := data[at:end]
		if at == 0 {
			text = bytes.TrimPrefix(text, bomUTF8)
		}
		switch {
		case isMarker(text, "---"):
			if current.open {
				cut(at, line)
			}
			current.open = true
		case isMarker(text, "..."):
			current.open = false
			cut(end, line+1)
		case !current.open && bytes.HasPrefix(text, []byte("%")):
			current.directives = true
		case !blankOrComment(text):
			current.open = true
		}
		at = end
	}
	cut(len(data), line)
	return chunks
}

// isMarker tells whether a line is the given document marker: nothing or a
// blank must follow it, so that "---foo" is text.
func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

func blankOrComment(line []byte) bool {
	text := bytes.TrimSpace(line)
	return len(text) == 0 || text[0] == '#'
}

// lineEnd returns the offset behind the line that starts at the given offset,
// its line break included. The breaks are those of YAML 1.1, which the parser
// counts by: LF, CR LF, CR, NEL, and the line and paragraph separators.
func lineEnd(data []byte, at int) int {
	for at < len(data) {
		switch r, size := utf8.DecodeRune(data[at:]); r {
		case '\n', '\u0085', '\u2028', '\u2029':
			return at + size
		case '\r':
			if at+1 < len(data) && data[at+1] == '\n' {
				return at + 2
			}
			return at + 1
		default:
			at += size
		}
	}
	return at
}

// lineOf returns the number of the line, from 1, in which an offset lies.
func lineOf(data []byte, offset int) int {
	line := 1
	for at := lineEnd(data, 0); at <= offset && at < len(data); at = lineEnd(data, at) {
		line++
	}
	return line
}

// newlineOf returns the line break that a stream uses: CR LF where its first line ends so.
func newlineOf(data []byte) string {
	if at := bytes.IndexByte(data, '\n'); at > 0 && data[at-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
