// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSandboxProfile(t *testing.T) {
	path, err := WriteSandboxProfile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var profile struct {
		DefaultAction string
		Architectures []string
		Syscalls      []struct {
			Action string
			Names  []string
		}
	}
	if err := json.Unmarshal(text, &profile); err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != "SCMP_ACT_ERRNO" || len(profile.Architectures) > 0 {
		t.Errorf("the profile must refuse what it doesn't name, on the machine's own architecture alone: %s, %v", profile.DefaultAction, profile.Architectures)
	}
	for _, calls := range profile.Syscalls {
		for _, name := range []string{"mount", "ptrace", "bpf", "unshare", "setns", "keyctl", "init_module", "socket", "io_uring_setup", "userfaultfd"} {
			if calls.Action == "SCMP_ACT_ALLOW" && slices.Contains(calls.Names, name) {
				t.Errorf("a process that only waits may call %s", name)
			}
		}
	}
	if got := SandboxSeccomp(path); got.ProfileType != runtimeapi.SecurityProfile_Localhost || got.LocalhostRef != path {
		t.Errorf("with a profile: %v", got)
	}
	if got := SandboxSeccomp(""); got.ProfileType != runtimeapi.SecurityProfile_RuntimeDefault {
		t.Errorf("without a profile: %v", got)
	}
}
