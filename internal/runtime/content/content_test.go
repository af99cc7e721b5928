// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package content

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fixture is a store in a folder, as containerd lays it out.
type fixture struct {
	t   *testing.T
	dir string
}

func (f fixture) write(size int, text string, age time.Duration, path ...string) {
	f.t.Helper()
	name := filepath.Join(append([]string{f.dir, folder}, path...)...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if size > 0 {
		text = strings.Repeat("x", size)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(name, at, at); err != nil {
		f.t.Fatal(err)
	}
}

func (f fixture) blob(digest string, size int) { f.write(size, "", 0, "blobs", "sha256", digest) }

func (f fixture) coming(id, digest string, size int) {
	f.write(0, "k8s.io/7/layer-sha256:"+digest, 0, "ingest", id, "ref")
	f.write(size, "", 0, "ingest", id, "data")
}

// manifest of layers that are 100 bytes each.
func (f fixture) manifest(name string, age time.Duration, layers ...string) {
	var list []string
	for _, l := range layers {
		list = append(list, fmt.Sprintf(`{"digest":"sha256:%s","size":100}`, l))
	}
	f.write(0, `{"schemaVersion":2,"config":{"digest":"sha256:c"},"layers":[`+strings.Join(list, ",")+`]}`, age, "blobs", "sha256", name)
}

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(f fixture)
		want Progress
	}{
		{"nothing yet", func(fixture) {}, Progress{}},
		{"one layer here, one on its way, one not begun", func(f fixture) {
			f.manifest("m", 0, "a", "b", "c")
			f.blob("a", 100)
			f.coming("1", "b", 30)
		}, Progress{130, 300}},
		{"all is here", func(f fixture) {
			f.manifest("m", 0, "a", "b")
			f.blob("a", 100)
			f.blob("b", 100)
		}, Progress{200, 200}},
		{"another image that is complete doesn't count", func(f fixture) {
			f.manifest("other", 0, "o")
			f.blob("o", 100)
			f.manifest("m", 0, "a")
			f.coming("1", "a", 10)
		}, Progress{10, 100}},
		{"two images that share a layer", func(f fixture) {
			f.manifest("m", 0, "a", "b")
			f.manifest("n", 0, "a", "c")
			f.coming("1", "a", 10)
			f.coming("2", "c", 5)
		}, Progress{15, 300}},
		{"a manifest from before", func(f fixture) {
			f.manifest("m", time.Hour, "a", "b")
			f.coming("1", "a", 10)
		}, Progress{10, 0}},
		{"what is no manifest", func(f fixture) {
			f.write(0, `{"architecture":"amd64","config":{}}`, 0, "blobs", "sha256", "config")
			f.write(0, `{ broken`, 0, "blobs", "sha256", "broken")
			f.blob("layer", 10)
		}, Progress{}},
	} {
		f := fixture{t: t, dir: t.TempDir()}
		f.write(0, "", 0, "ingest", ".keep")
		c.make(f)
		s, ok := Find(filepath.Join(f.dir, "io.containerd.snapshotter.v1.overlayfs"))
		if !ok {
			t.Fatal("the store isn't found")
		}
		got, err := s.Progress(time.Now().Add(-time.Minute))
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got):\n%s %v", c.name, diff, err)
		}
	}
}

func TestNoStore(t *testing.T) {
	for _, path := range []string{"", "relative", filepath.Join(t.TempDir(), "overlay")} {
		if s, ok := Find(path); ok {
			t.Errorf("beside %q there is the store %v", path, s)
		}
	}
}
