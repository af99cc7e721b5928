// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func namesOfAssets(assets []asset) []string {
	var names []string
	for _, a := range assets {
		names = append(names, a.name)
	}
	return names
}

func TestChoose(t *testing.T) {
	all := append(namesOfAssets(controlPlane.assets), namesOfAssets(node.assets)...)
	tests := []struct {
		name      string
		targets   []string
		want      []string
		linuxOnly bool
	}{
		{"nothing said", nil, all, true},
		{"all", []string{"all"}, all, true},
		{"a group", []string{"controlplane"}, []string{"etcd", "kube-apiserver", "kubectl", "kube-controller-manager"}, false},
		{"a group and one of it", []string{"kubectl", "controlplane"}, []string{"etcd", "kube-apiserver", "kubectl", "kube-controller-manager"}, false},
		{"names, in the catalogue's order", []string{"cni/bridge", "etcd"}, []string{"etcd", "cni/bridge"}, true},
		{"all and peers", []string{"peers", "all"}, append(slices.Clone(all), namesOfAssets(peers.assets)...), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.targets)
			if err != nil {
				t.Fatal(err)
			}
			if names := namesOfAssets(got.assets); !slices.Equal(names, tt.want) || got.linuxOnly != tt.linuxOnly {
				t.Errorf("choose(%q) = %q, linux only %t; want %q, %t", tt.targets, names, got.linuxOnly, tt.want, tt.linuxOnly)
			}
		})
	}
	if _, err := choose([]string{"etcdd"}); err == nil || !strings.Contains(err.Error(), `"etcdd"`) {
		t.Errorf("choose of an unknown target: %v; want an error that names it", err)
	}
}

// TestModulesPinEveryProgram holds the catalogue against the pinned modules: a main
// package that isn't among a module's tools would fall out of it with the next tidying.
func TestModulesPinEveryProgram(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range groups {
		for _, a := range g.assets {
			if seen[a.name] {
				t.Errorf("%s stands in the catalogue twice", a.name)
			}
			seen[a.name] = true
			if _, err := a.recipe.version(); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
			program, ok := a.recipe.(goProgram)
			if !ok {
				continue
			}
			text, err := os.ReadFile(filepath.Join(program.module, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			pkg := strings.TrimSuffix(program.upstream+"/"+program.pkg, "/")
			if !regexp.MustCompile(`(?m)^(tool )?\s*` + regexp.QuoteMeta(pkg) + `$`).Match(text) {
				t.Errorf("%s/go.mod doesn't name %s as a tool", program.module, pkg)
			}
		}
	}
}

// TestStagingModulesAreOfOneRelease guards against a half-raised Kubernetes.
func TestStagingModulesAreOfOneRelease(t *testing.T) {
	version, err := kubernetes("kube-apiserver").version()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("kubernetes/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	replaced := regexp.MustCompile(`(?m)^\s+(k8s\.io/\S+) => (\S+) (v\S+)$`).FindAllStringSubmatch(string(text), -1)
	if len(replaced) == 0 {
		t.Fatal("kubernetes/go.mod replaces no staging module")
	}
	want := strings.Replace(version, "v1.", "v0.", 1)
	for _, r := range replaced {
		if r[1] != r[2] || r[3] != want {
			t.Errorf("%s is replaced by %s %s; want itself at %s, the release of Kubernetes %s", r[1], r[2], r[3], want, version)
		}
	}
}

func TestInputs(t *testing.T) {
	module := t.TempDir()
	pin := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func(p goProgram) string {
		t.Helper()
		k, err := keyOf(asset{"program", p})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	pin("go.mod", "module pins\n\nrequire example.org/up v1.2.3 // indirect\n")
	pin("go.sum", "one\n")
	program := goProgram{module: module, upstream: "example.org/up"}
	if version, err := program.version(); err != nil || version != "v1.2.3" {
		t.Errorf("version = %q, %v; want v1.2.3", version, err)
	}
	keys := map[string]string{"at first": key(program)}
	if again := key(program); again != keys["at first"] {
		t.Error("the same inputs gave two keys")
	}
	withC := program
	withC.cgo = true
	keys["with cgo"] = key(withC)
	tagged := program
	tagged.tags = []string{"seccomp"}
	keys["with a tag"] = key(tagged)
	other := program
	other.pkg = "cmd/other"
	keys["another package"] = key(other)
	t.Setenv("CGO_CFLAGS", "-O3")
	keys["other C flags"] = key(program)
	t.Setenv("CGO_CFLAGS", "")
	pin("go.sum", "two\n")
	keys["another sum"] = key(program)
	seen := map[string]string{}
	for what, k := range keys {
		if before, ok := seen[k]; ok {
			t.Errorf("%q and %q have one key", what, before)
		}
		seen[k] = what
	}
}

// shell is a recipe for tests: a script that gets the program's path as $1.
type shell struct{ script string }

func (s shell) needs() []tool            { return nil }
func (s shell) version() (string, error) { return "v1", nil }
func (s shell) inputs(w io.Writer) error { _, err := fmt.Fprint(w, s.script); return err }
func (s shell) command(ctx context.Context, out string) (*exec.Cmd, error) {
	return exec.CommandContext(ctx, "sh", "-c", s.script, "sh", out), nil
}

func newStore(t *testing.T) store {
	t.Helper()
	s := store{dir: t.TempDir()}
	release, err := s.lock(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return s
}

func staleNames(t *testing.T, s store, assets []asset) []string {
	t.Helper()
	stale, err := s.stale(assets)
	if err != nil {
		t.Fatal(err)
	}
	return namesOfAssets(stale)
}

func TestBuildOnlyWhatIsStale(t *testing.T) {
	s := newStore(t)
	assets := []asset{{"one", shell{"echo one >$1"}}, {"dir/two", shell{"echo two >$1"}}}
	if got := staleNames(t, s, assets); !slices.Equal(got, []string{"one", "dir/two"}) {
		t.Fatalf("stale at first: %q; want both", got)
	}
	if err := s.buildAll(t.Context(), io.Discard, assets, len(assets)); err != nil {
		t.Fatal(err)
	}
	if got := staleNames(t, s, assets); got != nil {
		t.Errorf("stale after a build: %q; want none", got)
	}

	changed := []asset{{"one", shell{"echo uno >$1"}}, assets[1]}
	if got := staleNames(t, s, changed); !slices.Equal(got, []string{"one"}) {
		t.Errorf("stale after a change of one recipe: %q; want that one", got)
	}
	if err := os.WriteFile(s.program("one"), []byte("exchanged"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.program("dir/two")); err != nil {
		t.Fatal(err)
	}
	if got := staleNames(t, s, assets); !slices.Equal(got, []string{"one", "dir/two"}) {
		t.Errorf("stale after one was exchanged and one removed: %q; want both", got)
	}
}

func TestFailedBuildLeavesTheOldProgram(t *testing.T) {
	s := newStore(t)
	good := asset{"one", shell{"echo one >$1"}}
	if err := s.build(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	err := s.build(t.Context(), asset{"one", shell{"echo half >$1; echo the disk is full >&2; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "one was not built") || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("error = %v; want one that names the asset and repeats the builder's words", err)
	}
	if text, err := os.ReadFile(s.program("one")); err != nil || string(text) != "one\n" {
		t.Errorf("the program is now %q, %v; want the old one", text, err)
	}
	if _, err := os.Stat(s.scratch("one")); !os.IsNotExist(err) {
		t.Errorf("the half-made program is still there (%v)", err)
	}
	if got := staleNames(t, s, []asset{good}); got != nil {
		t.Errorf("stale: %q; want none, for the old one still stands", got)
	}
}

func TestStoppedBuildSaysSo(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.build(ctx, asset{"one", shell{"echo one >$1"}})
	if err == nil || !strings.Contains(err.Error(), "stopped while building one") {
		t.Errorf("error = %v; want one that says where it stopped", err)
	}
}

func TestUsePrebuilt(t *testing.T) {
	full, partial, out, whole := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range namesOfAssets(controlPlane.assets) {
		if err := os.WriteFile(filepath.Join(whole, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range prebuiltSet {
		for _, dir := range []string{full, out} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(partial, "etcd"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dir string
		assets    []asset
		linked    []string
		note      string // what the sentence has to contain; empty means silence
	}{
		{"not set", "", controlPlane.assets, nil, ""},
		{"the set", full, controlPlane.assets, prebuiltSet, "kubectl come from " + full},
		{"all that is wanted", whole, controlPlane.assets, namesOfAssets(controlPlane.assets), "all programs come from " + whole},
		{"all but the node's", whole, slices.Concat(controlPlane.assets, node.assets), prebuiltSet, "kubectl come from " + whole},
		{"nothing of it wanted", full, node.assets, nil, ""},
		{"incomplete", partial, controlPlane.assets, nil, "holds no program kube-apiserver, kubectl"},
		{"absent", filepath.Join(partial, "nowhere"), controlPlane.assets, nil, "is left alone"},
		{"our own folder", out, controlPlane.assets, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, note := usePrebuilt(tt.assets, tt.dir, out)
			var linked []string
			for _, a := range got {
				if _, ok := a.recipe.(link); ok {
					linked = append(linked, a.name)
				}
			}
			if !slices.Equal(linked, tt.linked) || !slices.Equal(namesOfAssets(got), namesOfAssets(tt.assets)) {
				t.Errorf("linked %q of %q; want %q of %q", linked, namesOfAssets(got), tt.linked, namesOfAssets(tt.assets))
			}
			if !strings.Contains(note, tt.note) || (tt.note == "") != (note == "") {
				t.Errorf("note = %q; want one with %q", note, tt.note)
			}
		})
	}
}

func TestLinkIsAnAssetLikeAnyOther(t *testing.T) {
	s := newStore(t)
	target := filepath.Join(t.TempDir(), "etcd")
	if err := os.WriteFile(target, []byte("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	linked, built := asset{"etcd", link{target}}, asset{"etcd", shell{"echo ours >$1"}}
	if err := s.build(t.Context(), linked); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(s.program("etcd")); err != nil || string(text) != "theirs" {
		t.Fatalf("linked program reads %q, %v", text, err)
	}
	if got := staleNames(t, s, []asset{linked}); got != nil {
		t.Errorf("stale after linking: %q", got)
	}
	if got := staleNames(t, s, []asset{built}); !slices.Equal(got, []string{"etcd"}) {
		t.Fatalf("stale once it is no longer to be linked: %q; want etcd", got)
	}
	if err := s.build(t.Context(), built); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(target); string(text) != "theirs" {
		t.Errorf("building over a link wrote through it: %q", text)
	}
}

func TestMissingToolsInSentences(t *testing.T) {
	absent := func() bool { return false }
	here := func() bool { return true }
	got := missing([]tool{{"gcc", "gcc", here}, {"nft", "nftables", absent}, {"ip", "iproute2", absent}, {"nft", "nftables", absent}})
	if names := namesOf(got); names != "nft and ip" {
		t.Errorf("missing = %q; want each absent tool once", names)
	}
	if command := howToInstall(got); command != "sudo apt-get install iproute2 nftables" {
		t.Errorf("howToInstall = %q", command)
	}
	if onPath("surely-no-such-program")() {
		t.Error("a program that doesn't exist was found")
	}
}
