// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// kind is what a node is.
type kind int

const (
	scalar kind = iota
	mapping
	sequence
	alias
)

// node is a value of a document and the place where it is written. YAML and
// JSON end up in the same tree, so that the walk needn't know which it reads.
type node struct {
	kind kind
	// text is a scalar's value, or an alias's name.
	text string
	// tag is a scalar's resolved type, such as "!!str".
	tag string
	// at is the offset in the chunk of the node's first byte; where the node
	// has an anchor or a tag, of that.
	at int
	// content holds the items of a sequence; of a mapping, keys and values in turn.
	content []*node
	// target is what an alias stands for.
	target *node
	// fields is what the function of that name found, once read is set.
	fields []field
	read   bool
}

// parseError is what a parser objects to, at a line of the chunk, from 1.
type parseError struct {
	line    int
	problem string
}

func (e *parseError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.problem) }

// parse returns the chunk's documents: none where it is empty or holds comments
// only, one where it is YAML, one or more where it is JSON. The error is a
// *parseError.
func parse(data []byte, preferJSON bool) (documents []*node, isJSON bool, err error) {
	start, end := bodyOf(data)
	if start < end && data[start] == '{' {
		documents, jsonErr := parseJSON(data[:end], start)
		if jsonErr == nil {
			return documents, true, nil
		}
		if preferJSON {
			return nil, true, jsonErr
		}
		// YAML's own flow style starts with the same brace.
	}
	document, err := parseYAML(data)
	if err != nil || document == nil {
		return nil, false, err
	}
	return []*node{document}, false, nil
}

// bodyOf returns where in a chunk the JSON would begin and end: without the byte
// order mark, the document markers, and the blank lines, directives and
// comments around it, with which JSON's own parser can do nothing.
func bodyOf(data []byte) (start, end int) {
	framing := func(line []byte) bool {
		for _, marker := range []string{"---", "..."} {
			if isMarker(line, marker) {
				line = line[len(marker):]
				break
			}
		}
		return blankOrComment(line) || line[0] == '%'
	}
	starts := append(lineStarts(data), len(data))
	first, last := 0, len(starts)-1
	for first < last && framing(data[starts[first]:starts[first+1]]) {
		first++
	}
	for last > first && framing(data[starts[last-1]:starts[last]]) {
		last--
	}
	start, end = starts[first], starts[last]
	if isMarker(data[start:end], "---") { // with the document on the same line
		start += len("---")
	}
	return start + len(data[start:end]) - len(bytes.TrimLeft(data[start:end], " \t\r\n")), end
}

// parseJSON reads one or more JSON values that follow one another.
func parseJSON(data []byte, body int) ([]*node, error) {
	decoder := json.NewDecoder(bytes.NewReader(data[body:]))
	decoder.UseNumber()
	var documents []*node
	for {
		document, err := jsonValue(decoder, data, body, 0)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			offset := body + int(decoder.InputOffset())
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				offset = min(body+int(syntax.Offset), len(data))
			}
			return nil, &parseError{line: lineOf(data, max(offset-1, 0)), problem: err.Error()}
		}
		documents = append(documents, document)
	}
}

// jsonValue reads the next value. It returns io.EOF only where no value begins.
func jsonValue(decoder *json.Decoder, data []byte, body, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels of brackets", maxDepth)
	}
	// The decoder tells where a token ends; the next one begins behind what
	// only separates.
	start := body + int(decoder.InputOffset())
	for start < len(data) && bytes.IndexByte([]byte(" \t\r\n,:"), data[start]) >= 0 {
		start++
	}
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	n := &node{at: start}
	switch token := token.(type) {
	case json.Delim:
		n.kind = sequence
		if token == '{' {
			n.kind = mapping
		}
		for decoder.More() {
			item, err := jsonValue(decoder, data, body, depth+1)
			if err != nil {
				return nil, noEOF(err)
			}
			n.content = append(n.content, item)
		}
		if _, err := decoder.Token(); err != nil { // the closing bracket
			return nil, noEOF(err)
		}
	case string:
		n.tag, n.text = "!!str", token
	case json.Number:
		n.tag, n.text = "!!float", token.String()
	case bool:
		n.tag, n.text = "!!bool", strconv.FormatBool(token)
	default:
		n.tag, n.text = "!!null", "null"
	}
	return n, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxLocatedLines bounds the search for the faulty line, whose time grows with
// the square of it.
const maxLocatedLines = 1000

// parserLine matches the parser's own statement of a line. The parser has no typed
// syntax error; nothing but the wording of our message depends on this match.
var parserLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parseYAML reads one YAML document, or returns nil where there is none.
func parseYAML(data []byte) (*node, error) {
	document, err := decodeYAML(data)
	if err != nil {
		match := parserLine.FindStringSubmatch(err.Error())
		failure := &parseError{line: 1, problem: err.Error()}
		if match != nil {
			failure.problem = strings.TrimPrefix(err.Error(), match[0])
			failure.line, _ = strconv.Atoi(match[1])
		}
		failure.line = max(failure.line, 1)
		if line, ok := faultyLine(data); ok {
			failure.line = line
		}
		return nil, failure
	}
	if document == nil || len(document.Content) == 0 {
		return nil, nil
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, nil
	}
	builder := &treeBuilder{data: data, lines: lineStarts(data), seen: map[*yaml.Node]*node{}}
	return builder.build(root), nil
}

func decodeYAML(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(parsable(data)))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("a second document begins without a line that starts with ---")
		}
		return nil, err
	}
	return &document, nil
}

// parsable returns the chunk as the parser wants it, with every byte at the same
// place or, for the byte order mark, before all of them: the parser refuses a
// "%YAML 1.2" that it could well read, so that the directive becomes a comment.
func parsable(data []byte) []byte {
	data = bytes.TrimPrefix(data, bomUTF8)
	var changed []byte
	for at := 0; at < len(data); {
		end := lineEnd(data, at)
		line := data[at:end]
		if bytes.HasPrefix(line, []byte("%YAML ")) {
			if changed == nil {
				changed = bytes.Clone(data)
			}
			changed[at] = '#'
		} else if !blankOrComment(line) && line[0] != '%' {
			break
		}
		at = end
	}
	if changed != nil {
		return changed
	}
	return data
}

// faultyLine finds the line that makes a document unreadable: the one behind the
// longest beginning that can be read. The parser itself often names the
// line where the enclosing block begins, or none.
func faultyLine(data []byte) (int, bool) {
	starts := lineStarts(data)
	if len(starts) > maxLocatedLines {
		return 0, false
	}
	for line := len(starts) - 1; line > 0; line-- {
		if _, err := decodeYAML(data[:starts[line]]); err == nil {
			return line + 1, true
		}
	}
	return 1, true
}

// lineStarts returns the offset of each line of a chunk.
func lineStarts(data []byte) []int {
	starts := []int{0}
	if bytes.HasPrefix(data, bomUTF8) {
		starts[0] = len(bomUTF8)
	}
	for at := lineEnd(data, 0); at < len(data); at = lineEnd(data, at) {
		starts = append(starts, at)
	}
	return starts
}

// treeBuilder turns the parser's nodes into ours, with offsets for lines and columns.
type treeBuilder struct {
	data  []byte
	lines []int
	seen  map[*yaml.Node]*node
}

func (b *treeBuilder) build(from *yaml.Node) *node {
	if n, ok := b.seen[from]; ok {
		return n
	}
	n := &node{at: b.offset(from)}
	b.seen[from] = n // before the children: an alias may stand inside its own anchor
	switch from.Kind {
	case yaml.MappingNode:
		n.kind = mapping
	case yaml.SequenceNode:
		n.kind = sequence
	case yaml.AliasNode:
		n.kind, n.text, n.target = alias, from.Value, b.build(from.Alias)
	default:
		n.kind, n.text, n.tag = scalar, from.Value, from.ShortTag()
	}
	for _, child := range from.Content {
		n.content = append(n.content, b.build(child))
	}
	return n
}

// offset returns where a node is written, or -1 where the parser doesn't know.
// The parser's columns count characters, from 1.
func (b *treeBuilder) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(b.lines) {
		return -1
	}
	at := b.lines[n.Line-1]
	for column := 1; column < n.Column && at < len(b.data); column++ {
		_, size := utf8.DecodeRune(b.data[at:])
		at += size
	}
	return at
}
