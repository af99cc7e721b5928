// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/test/node"
)

const sandboxCgroup = "pinnace-sandbox-test"

// TestSandboxesRunUnderTheirProfile starts sandboxes of each sort under the profile of their own: what runc needs after the filter is loaded differs.
func TestSandboxesRunUnderTheirProfile(t *testing.T) {
	const assets = "../../bin/assets"
	if testing.Short() {
		t.Skip("SKIPPED: -short is asked for, and it runs real containers")
	}
	if err := node.Prerequisites(assets); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED:", err)
	}
	n, err := node.Start(t.Context(), node.Options{Assets: assets, PodCIDR: "10.213.9.0/24", Bridge: "pnsandbox0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(n.Stop(context.Background()), node.RemoveCgroups(sandboxCgroup)); err != nil {
			t.Error(err)
		}
	})
	profile, err := runtime.WriteSandboxProfile(n.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"plain": func(*runtimeapi.PodSandboxConfig) {},
		"shared-pids": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		},
		"host-network": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network, c.Hostname = runtimeapi.NamespaceMode_NODE, ""
		},
		"user-and-groups": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.RunAsUser, c.Linux.SecurityContext.RunAsGroup = &runtimeapi.Int64Value{Value: 1000}, &runtimeapi.Int64Value{Value: 2000}
			c.Linux.SecurityContext.SupplementalGroups = []int64{3000}
		},
		"sysctl": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.tcp_syncookies": "1"}
		},
		"own-users": func(c *runtimeapi.PodSandboxConfig) {
			ids := []*runtimeapi.IDMapping{{HostId: 1 << 20, Length: 1 << 16}}
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := &runtimeapi.PodSandboxConfig{
				Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
				Hostname: name,
				Linux: &runtimeapi.LinuxPodSandboxConfig{
					CgroupParent: "/" + sandboxCgroup + "/" + name,
					SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
						NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
						Seccomp:          runtime.SandboxSeccomp(profile),
					},
				},
			}
			change(config)
			id, err := n.CRI.RunPodSandbox(t.Context(), config, "")
			if err != nil {
				t.Fatal(err)
			}
			status, err := n.CRI.PodSandboxStatus(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if status.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
				t.Errorf("the sandbox is %s", status.GetState())
			}
			if mode := seccompMode(t, name); mode != "2" {
				t.Errorf("the sandbox's process has seccomp mode %q, want 2: a filter", mode)
			}
			// It ends by itself when it is asked to, which the filter must allow.
			if err := errors.Join(n.CRI.StopPodSandbox(t.Context(), id), n.CRI.RemovePodSandbox(t.Context(), id)); err != nil {
				t.Error(err)
			}
		})
	}
}

// seccompMode reads it from the process in the pod's cgroup.
func seccompMode(t *testing.T, pod string) string {
	t.Helper()
	var processes []string
	for _, root := range []string{"/sys/fs/cgroup/" + sandboxCgroup, "/sys/fs/cgroup/pids/" + sandboxCgroup} {
		err := filepath.WalkDir(filepath.Join(root, pod), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil //nolint:nilerror // Of the two versions of cgroups one isn't there.
			}
			text, err := os.ReadFile(path)
			processes = append(processes, strings.Fields(string(text))...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(processes) != 1 {
		t.Fatalf("the pod's cgroup holds the processes %v, want one", processes)
	}
	text, err := os.ReadFile(filepath.Join("/proc", processes[0], "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if mode, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(mode)
		}
	}
	return ""
}
