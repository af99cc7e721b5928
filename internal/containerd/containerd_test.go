// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func assets(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin/assets")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "containerd")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("containerd isn't built: run make assets")
		}
		t.Skip("SKIPPED: containerd isn't built; run make assets")
	}
	return dir
}

func TestForNodeKeepsNodesApart(t *testing.T) {
	a, b := ForNode("/data/nodes/node-1", "/assets"), ForNode("/data/nodes/node-2", "/assets")
	if a.State == b.State || a.Root == b.Root || a.Socket() == b.Socket() {
		t.Errorf("two nodes share a folder: %+v %+v", a, b)
	}
	if again := ForNode("/data/nodes/node-1", "/assets"); again.State != a.State {
		t.Error("a node's folder changes from start to start: its pods would be lost")
	}
	if n := len(a.State + "/s"); n > maxShimSocketDir {
		t.Errorf("the shims' sockets lie %d characters deep, containerd allows %d", n, maxShimSocketDir)
	}
	if err := a.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"relative":  {func(c *Config) { c.Root = "data" }, `root folder must be an absolute path, but it is "data"`},
		"too long":  {func(c *Config) { c.State = "/run/" + strings.Repeat("x", 110) }, "longer than the kernel allows"},
		"two lines": {func(c *Config) { c.Root = "/data\n/evil" }, "control character"},
	} {
		t.Run(name, func(t *testing.T) {
			config := ForNode("/data/nodes/node-1", "/assets")
			c.change(&config)
			if err := config.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	config := ForNode("/data/nodes/node-1", t.TempDir())
	if err := config.CheckPrograms(); err == nil || !strings.Contains(err.Error(), "make assets") {
		t.Errorf("missing programs: %v", err)
	}
}

// TestContainerdReadsWhatWeMean asks the real containerd what it understood: a key that it doesn't know is silently ignored.
func TestContainerdReadsWhatWeMean(t *testing.T) {
	dir := assets(t)
	config := ForNode(filepath.Join(t.TempDir(), `no"de`), dir)
	config.State = t.TempDir()
	config.RestrictOOMScoreAdj = true
	if err := config.Write(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(config.Program, "--config", config.ConfigFile, "config", "dump").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Wants are the lines of the dump, by their section.
	wants := map[string][]string{
		"":                                       {"root = '" + config.Root + "'", "state = '" + config.State + "'", "version = 4"},
		"plugins.'io.containerd.server.v1.grpc'": {"address = '" + config.Socket() + "'"},
		"plugins.'io.containerd.server.v1.ttrpc'":                                 {"address = '" + config.Socket() + ".ttrpc'"},
		"plugins.'io.containerd.cri.v1.images'":                                   {"snapshotter = 'overlayfs'"},
		"plugins.'io.containerd.cri.v1.images'.pinned_images":                     {"sandbox = '" + DefaultSandboxImage + "'"},
		"plugins.'io.containerd.cri.v1.images'.registry":                          {"config_path = '" + config.RegistryConfigDir + "'"},
		"plugins.'io.containerd.cri.v1.runtime'":                                  {"restrict_oom_score_adj = true", "netns_mounts_under_state_dir = true"},
		"plugins.'io.containerd.cri.v1.runtime'.cni":                              {"use_internal_loopback = true", "conf_dir = '" + config.CNIConfDir + "'", "bin_dirs = ['" + dir + "/cni']"},
		"plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc":         {"runtime_path = '" + config.Shim + "'"},
		"plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options": {"BinaryName = '" + config.Runc + "'", "Root = '" + config.RuncRoot() + "'"},
		"plugins.'io.containerd.grpc.v1.cri'":                                     {"disable_tcp_service = true"},
	}
	section := ""
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if match := regexp.MustCompile(`^\[(.*)\]$`).FindStringSubmatch(line); match != nil {
			section = match[1]
			continue
		}
		seen[section+"\x00"+line] = true
	}
	for section, lines := range wants {
		for _, line := range lines {
			if !seen[section+"\x00"+line] {
				t.Errorf("containerd didn't take up [%s] %s", section, line)
			}
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// TestWriteLetsUsersOfContainersPass makes the folder of the state for root alone, as whoever was there first does: root of a user
// namespace must still find its own file system below it.
func TestWriteLetsUsersOfContainersPass(t *testing.T) {
	config := ForNode(filepath.Join(t.TempDir(), "node"), "/assets")
	config.State = filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(config.State, "cni"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := config.Write(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(config.State)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o711 {
		t.Errorf("the folder of the state has the mode %o", got)
	}
}

func TestMayRaiseLimits(t *testing.T) {
	const all, without = "Name:\tx\nCapEff:\t000001ffffffffff\n", "Name:\tx\nCapEff:\t000001fffeffffff\n"
	got := []bool{mayRaiseLimits(all), mayRaiseLimits(without), mayRaiseLimits(""), mayRaiseLimits("CapEff:\tnonsense\n")}
	if diff := cmp.Diff([]bool{true, false, false, false}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReady(t *testing.T) {
	config := ForNode("/data/node", "/assets")
	config.State = t.TempDir()
	ctx := context.Background()
	if err := config.Ready(ctx); err == nil || !strings.Contains(err.Error(), "has not opened its socket") {
		t.Errorf("before it runs: %v", err)
	}
	listener, err := net.Listen("unix", config.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if err := config.Ready(ctx); err != nil {
		t.Errorf("while it runs: %v", err)
	}
}

func TestEnvPutsTheUsersPathFirst(t *testing.T) {
	env := Config{}.Env("/my/bin")
	if env[0] != "PATH=/my/bin:"+systemPath {
		t.Errorf("%v", env)
	}
	if env := (Config{}).Env(""); env[0] != "PATH="+systemPath {
		t.Errorf("%v", env)
	}
}
