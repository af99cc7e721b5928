// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"b.yaml": "b", "a.yml": "a", "c.json": "c", "notes.txt": "n", "sub/d.yaml": "d", "only/sub/e.yaml": "e", "none/notes.txt": "n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(root, filepath.Join(root, "sub", "loop.yaml")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		paths     []string
		recursive bool
		want      []string
		err       string
	}{
		{"a folder", []string{"."}, false, []string{"a.yml=a", "b.yaml=b", "c.json=c"}, ""},
		{"folders in it", []string{"."}, true, []string{"a.yml=a", "b.yaml=b", "c.json=c", "only/sub/e.yaml=e", "sub/d.yaml=d"}, ""},
		{"order as given", []string{"notes.txt", "-", "a.yml"}, false, []string{"notes.txt=n", "standard input=in", "a.yml=a"}, ""},
		{"missing", []string{"x.yaml"}, false, nil, "there is no such file or folder"},
		{"nothing in the folder", []string{"none"}, false, nil, "the folder holds no file that ends in .yaml, .yml, .json"},
		{"only folders in the folder", []string{"only"}, false, nil, "add -R"},
		{"an address", []string{"https://example.com/a.yaml"}, false, nil, "curl"},
		{"standard input twice", []string{"-", "-"}, false, nil, "give it once"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Chdir(root)
			streams, err := Read(tc.paths, tc.recursive, strings.NewReader("in"))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, %v", streams, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, stream := range streams {
				got = append(got, filepath.ToSlash(stream.Name)+"="+string(stream.Data))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
