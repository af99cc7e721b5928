// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// traces are what pods leave on a machine while they run, and should not after.
type traces map[string][]string

// traces looks at the whole of this machine's part of the node: processes and shims, mounts, network namespaces, links on the bridge,
// cgroups, addresses that are given out, folders of pods and of logs.
func (w *world) traces() traces {
	out := traces{}
	for id, pid := range w.shims() {
		out["shim"] = append(out["shim"], fmt.Sprintf("%d of %s", pid, id))
	}
	glob := func(what string, patterns ...string) {
		for _, pattern := range patterns {
			paths, err := filepath.Glob(pattern)
			if err != nil {
				out["error"] = append(out["error"], err.Error())
			}
			out[what] = append(out[what], paths...)
		}
	}
	trees := []string{"/sys/fs/cgroup" + cgroupRoot, "/sys/fs/cgroup/*" + cgroupRoot}
	for _, tree := range trees {
		glob("cgroup", tree+"/pod*", tree+"/*/pod*")
	}
	// The same process stands in several trees; one file with a number is enough of a trace.
	for _, dir := range out["cgroup"] {
		for _, pid := range numbers(filepath.Join(dir, "cgroup.procs")) {
			out["process"] = append(out["process"], fmt.Sprintf("%d in %s", pid, dir))
		}
	}
	out["process"] = append(out["process"], w.strays()...)
	glob("network namespace", filepath.Join(w.node.Config.State, "netns", "*"), filepath.Join(w.node.Config.State, "*", "netns", "*"))
	glob("address", filepath.Join(w.node.Config.State, "cni", "*", "10.215.*"))
	glob("folder", filepath.Join(w.dataDir(), "pods", "*"), filepath.Join(w.dataDir(), "log", "*_*_*"))
	glob("bundle", filepath.Join(w.node.Config.State, "io.containerd.runtime.v2.task", "k8s.io", "*"), filepath.Join(w.node.Config.RuncRoot(), "k8s.io", "*"))
	out["link"] = links()
	out["mount"] = w.mounts()
	return out
}

// without are those that aren't among the others.
func (tr traces) without(others traces) traces {
	out := traces{}
	for what, list := range tr {
		for _, entry := range list {
			if !slices.Contains(others[what], entry) {
				out[what] = append(out[what], entry)
			}
		}
	}
	return out
}

// compare complains of what there is now and wasn't before.
func (tr traces) compare(before traces) error {
	var failures []error
	for what, list := range tr.without(before) {
		for _, entry := range list {
			failures = append(failures, fmt.Errorf("left behind: %s %s", what, entry))
		}
	}
	return errors.Join(failures...)
}

// strays are processes whose program is the suite's and that are in no cgroup of a pod that we know of: an orphan may have been moved.
func (w *world) strays() []string {
	var out []string
	paths, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return []string{err.Error()}
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), cgroupRoot+"/") {
			out = append(out, filepath.Base(filepath.Dir(path))+" by /proc")
		}
	}
	return out
}

// links are the ends of the pods' pairs on the suite's bridge.
func links() []string {
	var out []string
	paths, err := filepath.Glob("/sys/class/net/" + bridge + "/brif/*")
	if err != nil {
		return []string{err.Error()}
	}
	for _, path := range paths {
		if _, err := net.InterfaceByName(filepath.Base(path)); err == nil {
			out = append(out, filepath.Base(path))
		}
	}
	return out
}

// mounts are those below the node's folders.
func (w *world) mounts() []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && (strings.HasPrefix(fields[1], w.node.Config.State+"/") || strings.HasPrefix(fields[1], w.node.Dir+"/")) {
			out = append(out, fields[1])
		}
	}
	return out
}

// matches complains of a difference between the pods that there should be and what the runtime runs: of each pod one sandbox that is
// ready, with one container running for each name, and nothing else that runs.
func (c *chaos) matches(ctx context.Context) error {
	sandboxes, err := c.w.node.CRI.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}})
	if err != nil {
		return err
	}
	containers, err := c.w.node.CRI.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return err
	}
	found := map[string]int{}
	for _, s := range sandboxes {
		found[s.GetMetadata().GetUid()]++
	}
	for _, each := range containers {
		found[each.GetLabels()["io.kubernetes.pod.uid"]+"/"+each.GetMetadata().GetName()]++
	}
	pods, err := c.pods(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for _, pod := range pods {
		want := []string{string(pod.UID)}
		for _, each := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			want = append(want, string(pod.UID)+"/"+each.Name)
		}
		for _, key := range want {
			if found[key] != 1 {
				failures = append(failures, fmt.Errorf("%s: %d of %s run", pod.Name, found[key], key))
			}
			delete(found, key)
		}
	}
	for key, n := range found {
		failures = append(failures, fmt.Errorf("%d of %s run, of which nobody knows", n, key))
	}
	ids := map[string]bool{}
	for _, s := range sandboxes {
		ids[s.GetId()] = true
	}
	for _, each := range containers {
		ids[each.GetId()] = true
	}
	failures = append(failures, c.w.strangers(ids)...)
	// None of these pods has the host's network.
	now := c.w.traces()
	for _, what := range []string{"shim", "network namespace", "address", "link"} {
		if n := len(now[what]); n != len(c.wanted) {
			failures = append(failures, fmt.Errorf("there are %d of the sort %s for %d pods", n, what, len(c.wanted)))
		}
	}
	return errors.Join(failures...)
}

// strangers complains of processes in the cgroups of pods that are of no container or sandbox that runs.
func (w *world) strangers(ids map[string]bool) []error {
	var failures []error
	for _, tree := range []string{"/sys/fs/cgroup" + cgroupRoot, "/sys/fs/cgroup/*" + cgroupRoot} {
		for _, class := range []string{"", "burstable", "besteffort"} {
			dirs, err := filepath.Glob(filepath.Join(tree, class, "pod*", "*"))
			if err != nil {
				return []error{err}
			}
			for _, dir := range dirs {
				// The last part of a container's cgroup is its ID.
				if pids := numbers(filepath.Join(dir, "cgroup.procs")); len(pids) > 0 && !ids[filepath.Base(dir)] {
					failures = append(failures, fmt.Errorf("the processes %v in %s are of no container that runs", pids, dir))
				}
			}
		}
	}
	return failures
}
