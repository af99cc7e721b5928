// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pinnace-dev/pinnace/internal/suffix"
)

// corpus lies beside the repository, not in it.
const corpus = "../../../shared/corpus"

func corpusStreams(t *testing.T) []Stream {
	t.Helper()
	if _, err := os.Stat(corpus); errors.Is(err, os.ErrNotExist) {
		t.Skipf("SKIPPED: the corpus of real manifests isn't at %s beside this package, so that none of it was converted", corpus)
	}
	streams, err := Read([]string{corpus}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(streams) < 40 {
		t.Fatalf("the corpus has %d files only", len(streams))
	}
	return streams
}

// Every manifest of the corpus differs from its conversion in the values of
// apiVersion alone, and comes back byte for byte.
func TestCorpus(t *testing.T) {
	value := regexp.MustCompile(`^(\s*(?:- )?apiVersion: +["']?)[^"'\s]+`)
	for _, stream := range corpusStreams(t) {
		t.Run(strings.TrimPrefix(filepath.ToSlash(stream.Name), corpus+"/"), func(t *testing.T) {
			there, err := Streams([]Stream{stream}, ToPinnace)
			if err != nil {
				t.Fatal(err)
			}
			if there.Converted == 0 {
				t.Error("nothing was converted")
			}
			before, after := strings.Split(string(stream.Data), "\n"), strings.Split(string(there.Output), "\n")
			if len(before) != len(after) {
				t.Fatalf("%d lines became %d", len(before), len(after))
			}
			for i := range before {
				if before[i] == after[i] {
					continue
				}
				if !value.MatchString(before[i]) || value.ReplaceAllString(before[i], "$1") != value.ReplaceAllString(after[i], "$1") {
					t.Errorf("line %d changed:\n%s\n%s", i+1, before[i], after[i])
				}
			}
			for _, note := range there.Notes {
				if !strings.Contains(note.Text, "the API server's own ServiceAccount") {
					t.Error(note)
				}
			}
			back, err := Streams([]Stream{{Name: stream.Name, Data: there.Output}}, ToUpstream)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(back.Output, stream.Data) {
				t.Error("there and back is not the same")
			}
		})
	}
}

// kubectl finds in the joined output exactly the objects that were converted.
func TestKubectlReadsOutput(t *testing.T) {
	json := Stream{Name: "a.json", Data: []byte(`{"apiVersion":"v1","kind":"Pod"}{"apiVersion":"v1","kind":"Service"}`)}
	directive := Stream{Name: "b.yaml", Data: []byte("# c\n%YAML 1.1\n---\napiVersion: v1\nkind: ConfigMap\n")}
	bare := Stream{Name: "c.yaml", Data: []byte("apiVersion: apps/v1\nkind: Deployment")}
	oneJSON := Stream{Name: "d.json", Data: []byte(`{"apiVersion":"apps/v1","kind":"DaemonSet"}`)}
	const pod, service, configMap, deployment, daemonSet = "core.pinnace.dev/v1 Pod", "core.pinnace.dev/v1 Service",
		"core.pinnace.dev/v1 ConfigMap", "apps.pinnace.dev/v1 Deployment", "apps.pinnace.dev/v1 DaemonSet"
	for _, tc := range []struct {
		name    string
		streams []Stream
		want    []string
	}{
		{"JSON alone", []Stream{json, oneJSON}, []string{pod, service, daemonSet}},
		{"JSON first", []Stream{json, bare, directive}, []string{pod, service, deployment, configMap}},
		{"JSON last", []Stream{bare, oneJSON, json}, []string{deployment, daemonSet, pod, service}},
		{"directive between", []Stream{bare, directive, bare}, []string{deployment, configMap, deployment}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			result, err := Streams(tc.streams, ToPinnace)
			if err != nil {
				t.Fatal(err)
			}
			if got := asKubectl(t, result.Output); strings.Join(got, ", ") != strings.Join(tc.want, ", ") {
				t.Errorf("got %v, want %v from\n%s", got, tc.want, result.Output)
			}
		})
	}
	t.Run("corpus", func(t *testing.T) {
		result, err := Streams(corpusStreams(t), ToPinnace)
		if err != nil {
			t.Fatal(err)
		}
		objects := asKubectl(t, result.Output)
		if len(objects) != result.Documents {
			t.Errorf("kubectl reads %d objects of %d documents", len(objects), result.Documents)
		}
		for _, object := range objects {
			if !strings.Contains(object, ".pinnace.dev/") && object != "v1 ServiceAccount" {
				t.Errorf("%s was left alone", object)
			}
		}
	})
}

// asKubectl decodes a stream as kubectl does.
func asKubectl(t *testing.T, data []byte) []string {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var objects []string
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		if object.Object != nil {
			objects = append(objects, object.GetAPIVersion()+" "+object.GetKind())
		}
	}
}

// The page for users holds the same table as the rule.
func TestPageHoldsTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/convert.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range suffix.Kinds() {
		row := regexp.MustCompile("(?m)^\\| `" + kind.Upstream.GroupVersion().String() + "` \\| `" +
			kind.Pinnace.GroupVersion().String() + "` \\|.*[ ,]" + kind.Upstream.Kind + "(,| \\|)")
		if !row.Match(page) {
			t.Errorf("docs/convert.md has no row for %v", kind.Upstream)
		}
	}
}
