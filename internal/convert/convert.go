// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Direction says which way the suffix rule is applied.
type Direction int

const (
	// ToPinnace turns upstream kinds into Pinnace's.
	ToPinnace Direction = iota
	// ToUpstream turns Pinnace kinds into upstream's.
	ToUpstream
)

// Stream is one input: a file or standard input, with any number of documents.
type Stream struct {
	// Name is what messages call it. Its ending ".json" and the names that
	// kustomize looks for have a meaning.
	Name string
	// Data is the whole of it.
	Data []byte
}

// Note tells of a document that was left alone, or of a place in a converted
// one that wants a human's eye.
type Note struct {
	// Stream is the name of the input.
	Stream string
	// Document counts the input's documents from 1, empty ones left out; 0
	// means the input as a whole.
	Document int
	// Item is the place in a List, from 1, as in "2" or, in nested lists,
	// "2.1"; "" outside of lists.
	Item string
	// Text is one sentence.
	Text string
}

// String returns the note as one line. Names come from the input, so that what
// would break the line or steer a terminal is replaced.
func (n Note) String() string {
	where := n.Stream
	if n.Document > 0 {
		where += " document " + strconv.Itoa(n.Document)
	}
	if n.Item != "" {
		where += " item " + n.Item
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, where+": "+n.Text)
}

// Result is what became of all streams.
type Result struct {
	// Output is one stream that holds all documents in their order.
	Output []byte
	// Notes are in the order of the documents.
	Notes []Note
	// Documents counts the documents that aren't empty, Converted the objects
	// whose apiVersion was changed (several in a List).
	Documents, Converted int
}

// SyntaxError says that a stream can't be read, and where.
type SyntaxError struct {
	// Stream is the name of the input, Line counts from 1.
	Stream string
	Line   int
	// Problem is what the parser objects to.
	Problem string
}

// Error returns one sentence.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s line %d: this is no valid YAML or JSON: %s; nothing was written", e.Stream, e.Line, e.Problem)
}

// Streams converts all streams and joins them to one. The error is a
// *SyntaxError for the first stream that can't be read; there is no result
// then, so that nobody applies half of it.
func Streams(streams []Stream, direction Direction) (*Result, error) {
	result := &Result{}
	var converted []output
	for _, stream := range streams {
		c := &converter{stream: stream, direction: direction}
		out, err := c.convert()
		if err != nil {
			return nil, err
		}
		converted = append(converted, out)
		result.Notes = append(result.Notes, c.notes...)
		result.Documents += c.documents
		result.Converted += c.converted
	}
	result.Output = join(converted)
	return result, nil
}

// converter works through one stream.
type converter struct {
	stream    Stream
	direction Direction
	notes     []Note
	documents int
	converted int
}

// output is a converted stream.
type output struct {
	data []byte
	// directives tells whether lines such as "%YAML 1.2" stand before the first document.
	directives bool
	// open tells whether a document is still going on at the end.
	open bool
	// values are the offsets at which JSON values begin, where the stream is
	// JSON and nothing else; nil otherwise.
	values []int
}

func (c *converter) convert() (output, error) {
	if err := c.checkEncoding(); err != nil {
		return output{}, err
	}
	chunks := split(c.stream.Data)
	out := framing(chunks)
	preferJSON := filepath.Ext(c.stream.Name) == ".json"
	onlyJSON := true
	var data bytes.Buffer
	for _, chunk := range chunks {
		documents, isJSON, err := parse(chunk.data, preferJSON)
		if err != nil || isTemplate(chunk.data, documents) {
			return c.unreadable(chunk, err)
		}
		first := c.documents
		edited := c.rewrite(chunk.data, documents, preferJSON)
		if isJSON && len(chunks) == 1 {
			out.values = valueOffsets(edited)
		}
		onlyJSON = onlyJSON && (isJSON || c.documents == first)
		data.Write(edited)
	}
	if !onlyJSON {
		out.values = nil
	}
	out.data = data.Bytes()
	return out, nil
}

// framing returns an output that knows how its stream begins and ends.
func framing(chunks []chunk) output {
	if len(chunks) == 0 {
		return output{}
	}
	return output{directives: chunks[0].directives, open: chunks[len(chunks)-1].open}
}

// checkEncoding refuses what isn't UTF-8, which neither kubectl nor the API server reads.
func (c *converter) checkEncoding() error {
	data := c.stream.Data
	if bytes.HasPrefix(data, bomUTF16LE) || bytes.HasPrefix(data, bomUTF16BE) {
		return &SyntaxError{c.stream.Name, 1, "it is UTF-16 text: save it as UTF-8"}
	}
	for at := 0; at < len(data); {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			return &SyntaxError{c.stream.Name, lineOf(data, at), fmt.Sprintf("byte 0x%02x is no UTF-8: save it as UTF-8", data[at])}
		}
		at += size
	}
	return nil
}

// unreadable decides about a stream one of whose documents can't be read. A
// template is left alone as a whole: half of it converted would render to
// objects of both worlds.
func (c *converter) unreadable(chunk chunk, err error) (output, error) {
	var failure *parseError
	errors.As(err, &failure)
	action := bytes.Index(chunk.data, []byte("{{"))
	if action < 0 {
		if failure == nil {
			return output{}, err
		}
		return output{}, &SyntaxError{c.stream.Name, chunk.line + failure.line - 1, failure.problem}
	}
	line := chunk.line + lineOf(chunk.data, action) - 1
	reason := fmt.Sprintf("left as it is: it is a Helm or Go template ({{ at line %d): convert what `helm template` prints", line)
	if failure != nil {
		reason += fmt.Sprintf(" (as YAML it can't be read: line %d: %s)", chunk.line+failure.line-1, failure.problem)
	}
	c.notes, c.converted = []Note{{Stream: c.stream.Name, Text: reason + "."}}, 0
	c.documents = 0
	chunks := split(c.stream.Data)
	for _, part := range chunks {
		if documents, _, err := parse(part.data, false); err != nil || len(documents) > 0 {
			c.documents++
		}
	}
	out := framing(chunks)
	out.data = c.stream.Data
	return out, nil
}

// isTemplate tells whether a document that can be read holds template actions
// all the same: {{ .Values.name }} outside of quotes is, to YAML, a mapping
// whose key is a mapping.
func isTemplate(data []byte, documents []*node) bool {
	if !bytes.Contains(data, []byte("{{")) {
		return false
	}
	var template func(n *node) bool
	template = func(n *node) bool {
		if n.kind == mapping && len(n.content) > 0 && n.content[0].kind == mapping &&
			n.at >= 0 && bytes.HasPrefix(data[n.at:], []byte("{{")) {
			return true
		}
		for _, child := range n.content { // an alias's target is seen where it is written
			if template(child) {
				return true
			}
		}
		return false
	}
	for _, document := range documents {
		if template(document) {
			return true
		}
	}
	return false
}

// rewrite returns the chunk with its documents converted, and notes what it left alone.
func (c *converter) rewrite(data []byte, documents []*node, preferJSON bool) []byte {
	var edits []edit
	notes, converted, first := len(c.notes), c.converted, c.documents
	for i, document := range documents {
		c.documents++
		w := &walk{converter: c, document: c.documents}
		w.object(document, strconv.Itoa(i), "", "")
		edits = append(edits, w.edits...)
	}
	if len(edits) == 0 {
		return data
	}
	edited, ok := apply(data, edits)
	if ok && verify(documents, edited, preferJSON, edits) {
		return edited
	}
	// Never seen with JSON, so that the chunk is one document.
	c.notes, c.converted = c.notes[:notes], converted
	c.notes = append(c.notes, Note{Stream: c.stream.Name, Document: first + 1, Text: describe(documents[0]) +
		" left as it is: an anchor or a merge shares an apiVersion with a place that must not change: write the value out in both places."})
	return data
}

// valueOffsets returns where the JSON values of a chunk begin.
func valueOffsets(data []byte) []int {
	start, end := bodyOf(data)
	values, err := parseJSON(data[:end], start)
	if err != nil {
		return nil
	}
	var offsets []int
	for _, value := range values {
		offsets = append(offsets, value.at)
	}
	return offsets
}
