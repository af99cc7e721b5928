// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import "bytes"

// join writes one stream behind the other, with a marker between them where
// the second doesn't begin with one. Streams of JSON alone stay a stream of
// JSON values, which every JSON tool reads.
func join(outputs []output) []byte {
	if len(outputs) == 1 {
		return outputs[0].data
	}
	allJSON := true
	for _, o := range outputs {
		allJSON = allJSON && (len(o.values) > 0 || len(bytes.TrimSpace(o.data)) == 0)
	}
	var joined bytes.Buffer
	open := false
	for _, o := range outputs {
		data := o.data
		if joined.Len() > 0 {
			// A byte order mark has a place at the head of a stream only.
			data = bytes.TrimPrefix(data, bomUTF8)
		}
		if len(data) == 0 {
			continue
		}
		newline := newlineOf(joined.Bytes())
		if joined.Len() > 0 {
			if !bytes.HasSuffix(joined.Bytes(), []byte("\n")) {
				joined.WriteString(newline)
			}
			joined.WriteString(separator(data, o.directives, open, allJSON, newline))
		}
		open = o.open
		if allJSON {
			joined.Write(data)
			continue
		}
		// Values of a stream of JSON have nothing between them; documents must.
		skipped, start := len(o.data)-len(data), 0
		for i, offset := range o.values {
			if i > 0 {
				joined.Write(data[start : offset-skipped])
				joined.WriteString(newline + "---" + newline)
				start = offset - skipped
			}
		}
		joined.Write(data[start:])
	}
	return joined.Bytes()
}

// separator returns what stands between a stream and the data that follows it.
func separator(data []byte, directives, open, allJSON bool, newline string) string {
	switch {
	case allJSON || isMarker(data[:lineEnd(data, 0)], "---"):
		return ""
	case directives && open:
		// Directives may only follow a document that has ended.
		return "..." + newline
	case directives:
		return ""
	}
	return "---" + newline
}
