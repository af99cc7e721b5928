// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// Wrap lets a configuration's clients see Pinnace's kinds as upstream's. It must come before the configuration is used.
// Upgraded connections, SPDY and WebSocket, are led the same way, since their dialers wrap their transports alike.
func Wrap(config *rest.Config) *rest.Config {
	prefix := ""
	if at, err := url.Parse(config.Host); err == nil {
		prefix = strings.TrimSuffix(at.Path, "/")
	}
	// Custom resources know no protobuf.
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.Wrap(func(base http.RoundTripper) http.RoundTripper { return &transport{base: base, prefix: prefix} })
	return config
}

// transport applies the suffix rule between a client of upstream's kinds and the API server. It is safe for concurrent use.
type transport struct {
	base http.RoundTripper
	// prefix is the path of the API server's root, for one behind a proxy.
	prefix string
}

// RoundTrip translates the request, and the answer to it.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	path, below := strings.CutPrefix(r.URL.Path, t.prefix)
	if !below {
		return t.base.RoundTrip(r)
	}
	if r.Method == http.MethodGet && isDiscovery(path) {
		return t.discover(r, path)
	}
	from, ok := parsePath(path)
	if !ok {
		return t.base.RoundTrip(r)
	}
	at, ours := toPinnace(from)
	if !ours {
		return t.base.RoundTrip(r)
	}
	query := r.URL.Query()
	keep := narrow(at, query)
	out := r.Clone(r.Context())
	out.URL.Path, out.URL.RawPath = t.prefix+at.path(), ""
	if keep != nil {
		out.URL.RawQuery = query.Encode()
	}
	if isStream(out) {
		return t.base.RoundTrip(out)
	}
	acceptJSON(out.Header)
	if r.Method == http.MethodPatch && mediaType(r.Header) == string(types.StrategicMergePatchType) && at.group != subresourcesGroup {
		return t.patchStrategically(out)
	}
	body, err := readAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	if r.Method == http.MethodDelete && at.resource == "pods" && at.name != "" {
		if err := t.setGracePeriod(out, body); err != nil {
			return nil, err
		}
	}
	if body, err = translateBody(out.Header, body); err != nil {
		return nil, err
	}
	setBody(out, body)
	response, err := t.base.RoundTrip(out)
	if err != nil {
		return response, err
	}
	watches := query.Get("watch") == "true" || query.Get("watch") == "1"
	return answer(response, watches, keep)
}

// isStream says that a request becomes a connection of its own.
func isStream(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || r.Header.Get("Sec-Websocket-Protocol") != ""
}

// narrow takes from a list's field selector what custom resources can't select by, and returns what selects by it here; nil
// when there is nothing of the kind.
func narrow(at place, query url.Values) fields.Selector {
	text := query.Get("fieldSelector")
	if at.resource != "pods" || !strings.Contains(text, "status.phase") || query.Get("watch") != "" {
		return nil
	}
	selector, err := fields.ParseSelector(text)
	if err != nil {
		return nil // The API server will say what is wrong.
	}
	var theirs, here []string
	for _, requirement := range selector.Requirements() {
		term := requirement.Field + string(requirement.Operator) + fields.EscapeValue(requirement.Value)
		if requirement.Field == "status.phase" {
			here = append(here, term)
		} else {
			theirs = append(theirs, term)
		}
	}
	keep, err := fields.ParseSelector(strings.Join(here, ","))
	if err != nil {
		return nil
	}
	query.Set("fieldSelector", strings.Join(theirs, ","))
	return keep
}

// acceptJSON takes from what a client accepts the encodings that custom resources don't have.
func acceptJSON(header http.Header) {
	if header.Get("Accept") == "" {
		return
	}
	var kept []string
	for _, part := range strings.Split(header.Get("Accept"), ",") {
		if !strings.Contains(part, "protobuf") && !strings.Contains(part, "cbor") && strings.TrimSpace(part) != "" {
			kept = append(kept, part)
		}
	}
	if len(kept) == 0 {
		kept = []string{runtime.ContentTypeJSON}
	}
	header.Set("Accept", strings.Join(kept, ","))
}

func mediaType(header http.Header) string {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return header.Get("Content-Type")
	}
	return kind
}

// translateBody turns what is sent into JSON of Pinnace's kinds. A JSON patch names no kind and stays as it is.
func translateBody(header http.Header, body []byte) ([]byte, error) {
	kind := mediaType(header)
	if len(body) == 0 || kind == string(types.JSONPatchType) {
		return body, nil
	}
	switch kind {
	case string(types.ApplyYAMLPatchType):
		converted, err := yaml.YAMLToJSON(body)
		if err != nil {
			return nil, fmt.Errorf("reading what is to be applied: %w", err)
		}
		body = converted
	case runtime.ContentTypeProtobuf, runtime.ContentTypeCBOR:
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("reading what is sent as %s: %w", kind, err)
		}
		if body, err = json.Marshal(object); err != nil {
			return nil, fmt.Errorf("encoding what is sent: %w", err)
		}
		header.Set("Content-Type", runtime.ContentTypeJSON)
	}
	return translateJSON(body, down)
}

func translateJSON(data []byte, to direction) ([]byte, error) {
	object, err := decode(data)
	if err != nil {
		return data, nil // Whoever reads it says what is wrong with it.
	}
	translate(object, to)
	out, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encoding an object: %w", err)
	}
	return out, nil
}

// decode reads an object, and keeps numbers as they are written.
func decode(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	return object, nil
}

// answer translates what comes back. Logs and the like pass through.
func answer(response *http.Response, watches bool, keep fields.Selector) (*http.Response, error) {
	if response.StatusCode == http.StatusSwitchingProtocols || mediaType(response.Header) != runtime.ContentTypeJSON {
		return response, nil
	}
	if watches && response.StatusCode == http.StatusOK {
		from := response.Body
		reader, writer := io.Pipe()
		go translateFrames(from, writer)
		response.Body = &frames{reader, from}
		return response, nil
	}
	data, err := readAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if keep != nil {
		data = selectItems(data, keep)
	}
	if data, err = translateJSON(data, up); err != nil {
		return nil, err
	}
	replaceBody(response, data)
	return response, nil
}

// selectItems drops the items of a list of pods that the selector doesn't want. Of a table it drops nothing: its rows hold no
// status, and the column tells.
func selectItems(data []byte, keep fields.Selector) []byte {
	object, err := decode(data)
	if err != nil {
		return data
	}
	items, ok := object["items"].([]any)
	if !ok {
		return data
	}
	kept := []any{}
	for _, item := range items {
		one, _ := item.(map[string]any)
		status, _ := one["status"].(map[string]any)
		phase, _ := status["phase"].(string)
		if keep.Matches(fields.Set{"status.phase": phase}) {
			kept = append(kept, item)
		}
	}
	object["items"] = kept
	out, err := json.Marshal(object)
	if err != nil {
		return data
	}
	return out
}

// frames is the body of a watch.
type frames struct {
	*io.PipeReader
	from io.Closer
}

// Close ends the watch.
func (f *frames) Close() error {
	_ = f.PipeReader.Close()
	return f.from.Close()
}

// translateFrames copies a watch, event by event, until either side ends it.
func translateFrames(from io.Reader, to *io.PipeWriter) {
	decoder := json.NewDecoder(from)
	decoder.UseNumber()
	encoder := json.NewEncoder(to)
	for {
		var event struct {
			Type   string         `json:"type"`
			Object map[string]any `json:"object"`
		}
		if err := decoder.Decode(&event); err != nil {
			_ = to.CloseWithError(err)
			return
		}
		translate(event.Object, up)
		if err := encoder.Encode(event); err != nil {
			return // Nobody reads any more.
		}
	}
}

func readAll(from io.ReadCloser) ([]byte, error) {
	if from == nil {
		return nil, nil
	}
	defer func() { _ = from.Close() }()
	return io.ReadAll(from)
}

func setBody(r *http.Request, body []byte) {
	if r.Body == nil && len(body) == 0 {
		return
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Header.Del("Content-Length")
}

func replaceBody(response *http.Response, data []byte) {
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	response.Header.Del("Content-Length")
}
