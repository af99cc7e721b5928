// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestLeases(t *testing.T) {
	dir := t.TempDir()
	l := Leases{ConfDir: filepath.Join(dir, "net.d"), Results: filepath.Join(dir, "results")}
	if got, err := l.List(); err != nil || len(got) > 0 {
		t.Errorf("without a configuration there are %v, %v", got, err)
	}
	network := Network{PodCIDRs: []string{"10.9.0.0/24", "fd00::/64"}, LeaseDir: filepath.Join(dir, "addresses")}
	if _, err := network.WriteConf(l.ConfDir); err != nil {
		t.Fatal(err)
	}
	if got, err := l.List(); err != nil || len(got) > 0 {
		t.Errorf("before the first pod there are %v, %v", got, err)
	}
	folder := filepath.Join(dir, "addresses", "pinnace")
	for path, text := range map[string]string{
		filepath.Join(folder, "10.9.0.2"):              "one\r\neth0",
		filepath.Join(folder, "10.9.0.3"):              "two\r\neth0",
		filepath.Join(folder, "fd00::2"):               "three\r\neth0",
		filepath.Join(folder, "10.9.0.4"):              "../../x\r\neth0",
		filepath.Join(folder, "10.9.0.5"):              "",
		filepath.Join(folder, "last_reserved_ip.0"):    "10.9.0.3",
		filepath.Join(folder, "lock"):                  "",
		filepath.Join(l.Results, "pinnace-one-eth0"):   `{"netns":"` + filepath.Join(dir, "gone") + `"}`,
		filepath.Join(l.Results, "pinnace-three-eth0"): `{"netns":"/proc/self/ns/net"}`,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []Lease{
		{Path: filepath.Join(folder, "10.9.0.2"), Sandbox: "one"}, {Path: filepath.Join(folder, "10.9.0.3"), Sandbox: "two"},
		{Path: filepath.Join(folder, "fd00::2"), Sandbox: "three", Used: true},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(time.Time{}), cmpopts.IgnoreUnexported(Lease{})); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	// Meanwhile the second address was given to another.
	if err := os.WriteFile(got[1].Path, []byte("four\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, lease := range []Lease{got[0], got[0], got[1]} {
		if err := l.Release(lease); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]bool{got[0].Path: false, filepath.Join(l.Results, "pinnace-one-eth0"): false, got[1].Path: true, got[2].Path: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there is %t, want %t", path, err == nil, want)
		}
	}
}

func TestLeasesOfAnother(t *testing.T) {
	dir := t.TempDir()
	lease := filepath.Join(dir, "addresses", "pinnace", "10.9.0.2")
	if err := os.MkdirAll(filepath.Dir(lease), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lease, []byte("one\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := func(name, more string) string {
		return `{"name":"` + name + `","plugins":[{"type":"bridge","ipam":{"dataDir":"` + filepath.Join(dir, "addresses") + `"}}` + more + `]}`
	}
	for what, c := range map[string]struct {
		text string
		want int
	}{
		"ours":               {conf("pinnace", ""), 1},
		"another network":    {conf("other", ""), 0},
		"more plugins":       {conf("pinnace", `,{"type":"portmap"}`), 0},
		"the default folder": {`{"name":"pinnace","plugins":[{"type":"bridge","ipam":{}}]}`, 0},
		"no plugin":          {`{"name":"pinnace"}`, 0},
	} {
		if err := os.WriteFile(filepath.Join(dir, confName), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := (Leases{ConfDir: dir}).List(); err != nil || len(got) != c.want {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}
