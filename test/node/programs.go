// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/pinnace-dev/pinnace/internal/containerd"
)

// ProgramsVariable names a folder with containerd, containerd-shim-runc-v2 and runc, on which the suites run in place of the assets.
const ProgramsVariable = "PINNACE_TEST_RUNTIME"

// useOtherPrograms takes containerd, its shim and runc from a folder of the user's.
func (n *Node) useOtherPrograms(ctx context.Context, dir string) error {
	if dir == "" {
		dir = os.Getenv(ProgramsVariable)
	}
	if dir == "" {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding the runtime in %s: %w", dir, err)
	}
	find := func(name string) string {
		// Debian puts runc into sbin.
		if path := filepath.Join(filepath.Dir(dir), "sbin", name); exists(path) && !exists(filepath.Join(dir, name)) {
			return path
		}
		return filepath.Join(dir, name)
	}
	n.Config.Program, n.Config.Shim, n.Config.Runc = find("containerd"), find("containerd-shim-runc-v2"), find("runc")
	if err := n.Config.CheckPrograms(); err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, n.Config.Program, "--version").Output()
	if err != nil {
		return fmt.Errorf("asking %s for its version: %w", n.Config.Program, err)
	}
	n.older = strings.Contains(string(version), " 1.")
	fmt.Fprintf(os.Stderr, "The runtime is %s", version)
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// olderConfig is what internal/containerd renders, in the form of before containerd 2.0.
var olderConfig = template.Must(template.New("config.toml").Parse(`version = 2
root = "{{.Root}}"
state = "{{.State}}"
[grpc]
  address = "{{.Socket}}"
[ttrpc]
  address = "{{.Socket}}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.SandboxImage}}"
  restrict_oom_score_adj = {{.RestrictOOMScoreAdj}}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{index .CNIBinDirs 0}}"
    conf_dir = "{{.CNIConfDir}}"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{{.Shim}}"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{{.Runc}}"
        Root = "{{.RuncRoot}}"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{{.RegistryConfigDir}}"
`))

// writeOlderConfig writes the configuration over the one that Config.Write has left.
func (n *Node) writeOlderConfig() error {
	config := n.Config
	if config.SandboxImage == "" {
		config.SandboxImage = containerd.DefaultSandboxImage
	}
	var text bytes.Buffer
	if err := olderConfig.Execute(&text, config); err != nil {
		return fmt.Errorf("rendering containerd's configuration: %w", err)
	}
	if err := os.WriteFile(n.Config.ConfigFile, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing containerd's configuration: %w", err)
	}
	return nil
}

// Older says that the runtime is a containerd of before 2.0.
func (n *Node) Older() bool { return n.older }
