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
	"slices"
	"strconv"
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

// processesOf are the processes in the pod's cgroups, the pause process among them.
func (w *world) processesOf(pod *pcorev1.Pod) []int {
	var out []int
	for _, tree := range []string{"/sys/fs/cgroup" + cgroupRoot, "/sys/fs/cgroup/pids" + cgroupRoot, "/sys/fs/cgroup/memory" + cgroupRoot} {
		for _, class := range []string{"", "burstable", "besteffort"} {
			files, err := filepath.Glob(filepath.Join(tree, class, "pod"+string(pod.UID), "*", "cgroup.procs"))
			if err != nil {
				continue
			}
			for _, file := range files {
				out = append(out, numbers(file)...)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return out
}

func numbers(file string) []int {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // it went meanwhile
	}
	var out []int
	for _, field := range strings.Fields(string(data)) {
		if n, err := strconv.Atoi(field); err == nil && n > 1 {
			out = append(out, n)
		}
	}
	return out
}

// shims are the shims of this machine's containerd, by the ID of their sandbox.
func (w *world) shims() map[string]int {
	out := map[string]int{}
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return out
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		args := strings.Split(string(data), "\x00")
		// Shims name their containerd's socket.
		if !strings.Contains(args[0], "containerd-shim") || !slices.Contains(args, w.node.Config.Socket()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if i := slices.Index(args, "-id"); err == nil && i >= 0 && i+1 < len(args) {
			out[args[i+1]] = pid
		}
	}
	return out
}

// shimsOf are the pod's.
func (w *world) shimsOf(pod *pcorev1.Pod) ([]int, error) {
	of := map[string]string{"io.kubernetes.pod.uid": string(pod.UID)}
	sandboxes, err := w.node.CRI.ListPodSandbox(context.Background(), &runtimeapi.PodSandboxFilter{LabelSelector: of})
	if err != nil {
		return nil, err
	}
	all := w.shims()
	var out []int
	for _, s := range sandboxes {
		if pid, ok := all[s.GetId()]; ok {
			out = append(out, pid)
		}
	}
	return out, nil
}

// awaitExit waits until the runtime says that the pod's containers have ended.
func (w *world) awaitExit(ctx context.Context, r *caseRun) error {
	of := map[string]string{"io.kubernetes.pod.uid": string(r.pod.UID)}
	return poll(ctx, patience, func(ctx context.Context) error {
		running, err := w.node.CRI.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: of,
			State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
		if err != nil {
			return fatal{err}
		}
		if len(running) > 0 {
			return errors.New("the container doesn't end")
		}
		return nil
	})
}
