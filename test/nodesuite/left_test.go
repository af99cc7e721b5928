// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// podDir is the pod's folder on the node.
func (w *world) podDir(pod *pcorev1.Pod) string {
	return filepath.Join(w.dataDir(), "pods", string(pod.UID))
}

// nothingLeft says what a pod that is gone has left on the node.
func (w *world) nothingLeft(ctx context.Context, pod *pcorev1.Pod) error {
	of := map[string]string{"io.kubernetes.pod.uid": string(pod.UID)}
	var failures []error
	sandboxes, err := w.node.CRI.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: of})
	if failures = append(failures, err); len(sandboxes) > 0 {
		failures = append(failures, fmt.Errorf("sandboxes are left: %v", sandboxes))
	}
	for _, pattern := range []string{
		w.podDir(pod), filepath.Join(w.dataDir(), "log", "*"+string(pod.UID)),
		"/sys/fs/cgroup/*" + cgroupRoot + "/*/pod" + string(pod.UID), "/sys/fs/cgroup/*" + cgroupRoot + "/pod" + string(pod.UID),
		"/sys/fs/cgroup" + cgroupRoot + "/*/pod" + string(pod.UID), "/sys/fs/cgroup" + cgroupRoot + "/pod" + string(pod.UID),
	} {
		left, err := filepath.Glob(pattern)
		if failures = append(failures, err); len(left) > 0 {
			failures = append(failures, fmt.Errorf("this is left of the pod: %v", left))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	failures = append(failures, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, string(pod.UID)) {
			failures = append(failures, fmt.Errorf("a mount is left: %s", strings.TrimSpace(line)))
		}
	}
	return errors.Join(failures...)
}

// lacks says why a case can't run on this machine; empty when it can.
func (w *world) lacks(need string) string {
	switch need {
	case "":
		return ""
	case "memory-cgroup":
		if !anyThere("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cgroup.controllers") {
			return "this machine has no memory controller of cgroups"
		}
	case "ip":
		if _, err := exec.LookPath("ip"); err != nil {
			return "this machine has no program ip"
		}
	case "modern-runtime":
		if w.node.Older() {
			return "containerd before 2.0 can't do it"
		}
	case "older-runtime":
		if !w.node.Older() {
			return "it is about containerd before 2.0"
		}
	default:
		return "nobody knows the need " + need
	}
	return ""
}

func anyThere(paths ...string) bool {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}
