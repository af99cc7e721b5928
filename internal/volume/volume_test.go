// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func manager(t *testing.T) *Manager {
	t.Helper()
	m, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func files(pairs ...string) *Files {
	f := &Files{Data: map[string]File{}}
	for i := 0; i < len(pairs); i += 2 {
		f.Data[pairs[i]] = File{Data: []byte(pairs[i+1]), Mode: 0o644}
	}
	return f
}

func mountOne(t *testing.T, m *Manager, v Volume) string {
	t.Helper()
	v.Name = "v"
	paths, err := m.Mount("uid", []Volume{v}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return paths["v"]
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFilesAreWrittenUpdatedAndRemoved(t *testing.T) {
	m := manager(t)
	dir := mountOne(t, m, Volume{Files: files("a", "1", "deep/er/b", "2")})
	if read(t, filepath.Join(dir, "a")) != "1" || read(t, filepath.Join(dir, "deep/er/b")) != "2" {
		t.Error("the files are not there")
	}
	link, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	mountOne(t, m, Volume{Files: files("a", "1", "deep/er/b", "2")})
	if same, _ := os.Readlink(filepath.Join(dir, "..data")); same != link {
		t.Error("nothing changed and the data was swapped")
	}
	mountOne(t, m, Volume{Files: files("a", "changed", "c", "3")})
	if read(t, filepath.Join(dir, "a")) != "changed" || read(t, filepath.Join(dir, "c")) != "3" {
		t.Error("the update is not there")
	}
	if _, err := os.Lstat(filepath.Join(dir, "deep")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone is still seen: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 { // a, c, ..data and one folder
		t.Errorf("left in the volume: %v %v", entries, err)
	}
}

// TestUpdatesAreAtomic reads while the files are swapped: both files of one version, or none.
func TestUpdatesAreAtomic(t *testing.T) {
	m := manager(t)
	dir := mountOne(t, m, Volume{Files: files("x", "0", "y", "0")})
	var done atomic.Bool
	finished := make(chan string, 1)
	go func() {
		for !done.Load() {
			at, err := os.Readlink(filepath.Join(dir, "..data"))
			at = filepath.Join(dir, at)
			if err != nil {
				finished <- "the link was away: " + err.Error()
				return
			}
			x, errX := os.ReadFile(filepath.Join(at, "x"))
			y, errY := os.ReadFile(filepath.Join(at, "y"))
			if errX == nil && errY == nil && string(x) != string(y) {
				finished <- "x is " + string(x) + " and y is " + string(y)
				return
			}
		}
		finished <- ""
	}()
	for i := range 200 {
		text := strings.Repeat("z", i+1)
		mountOne(t, m, Volume{Files: files("x", text, "y", text)})
	}
	done.Store(true)
	if wrong := <-finished; wrong != "" {
		t.Error(wrong)
	}
}

func TestFilesStayInTheVolume(t *testing.T) {
	m := manager(t)
	for _, name := range []string{"../x", "/x", "a/../../x", "..x"} {
		if _, err := m.Mount("uid", []Volume{{Name: "v", Files: files(name, "1")}}, nil); err == nil {
			t.Errorf("the path %q was taken", name)
		}
	}
}

func TestModes(t *testing.T) {
	m := manager(t)
	dir := mountOne(t, m, Volume{Files: &Files{Data: map[string]File{"s": {Data: []byte("1"), Mode: 0o400}}}})
	info, err := os.Stat(filepath.Join(dir, "s"))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	dir = mountOne(t, manager(t), Volume{Empty: &Empty{}})
	info, err = os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("an emptyDir has mode %v, %v", info.Mode(), err)
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{dir, corev1.HostPathDirectory, true},
		{file, corev1.HostPathDirectory, false},
		{file, corev1.HostPathFile, true},
		{dir, corev1.HostPathFile, false},
		{filepath.Join(dir, "no"), corev1.HostPathFile, false},
		{filepath.Join(dir, "no"), corev1.HostPathUnset, true},
		{filepath.Join(dir, "made"), corev1.HostPathDirectoryOrCreate, true},
		{filepath.Join(dir, "madefile"), corev1.HostPathFileOrCreate, true},
		{file, corev1.HostPathSocket, false},
		{"/dev/null", corev1.HostPathCharDev, true},
		{"/dev/null", corev1.HostPathBlockDev, false},
		{"relative", corev1.HostPathUnset, false},
		{dir, "Nonsense", false},
	} {
		_, err := manager(t).Mount("uid", []Volume{{Name: "v", Host: &Host{Path: tc.path, Type: tc.kind}}}, nil)
		if (err == nil) != tc.ok {
			t.Errorf("%s as %q: %v", tc.path, tc.kind, err)
		}
	}
}

func TestUnmountIsIdempotentAndLeavesTheHostAlone(t *testing.T) {
	m := manager(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mountOne(t, m, Volume{Host: &Host{Path: host}})
	mountOne(t, m, Volume{Empty: &Empty{}})
	for range 2 {
		if err := m.Unmount("uid"); err != nil {
			t.Fatal(err)
		}
	}
	if pods, err := m.Pods(); err != nil || len(pods) != 0 {
		t.Errorf("left: %v %v", pods, err)
	}
	if _, err := os.Stat(filepath.Join(host, "kept")); err != nil {
		t.Error(err)
	}
}

func TestSubPathNeverLeavesTheVolume(t *testing.T) {
	m := manager(t)
	dir := mountOne(t, m, Volume{Empty: &Empty{}})
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../etc", filepath.Join(dir, "up")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"../x", "/etc", "out", "out/passwd", "up", "up/passwd"} {
		if path, err := m.SubPath("uid", "c", 0, dir, sub); err == nil {
			t.Errorf("subPath %q was taken: %s", sub, path)
		}
	}
}
