// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pinnace-dev/pinnace/internal/supervise"
	"github.com/pinnace-dev/pinnace/test/node"
)

const (
	agentNode     = "bench-agent"
	kubeletNode   = "bench-kubelet"
	kubeletCgroup = "kubepods"
)

// side is who runs the pods.
type side struct {
	name, apiVersion, node string
	start                  func(*rig) (supervise.Instance, error)
}

var sides = []*side{
	{"agent", "core.pinnace.dev/v1", agentNode, (*rig).startAgent},
	{"kubelet", "v1", kubeletNode, (*rig).startKubelet},
}

func (r *rig) startAgent() (supervise.Instance, error) {
	kubeconfig, err := r.plane.Kubeconfig("agent", "system:pinnace:node:"+agentNode, "system:pinnace:nodes")
	if err != nil {
		return nil, err
	}
	// The network's configuration is in place, the same for both sides.
	return r.start("agent", r.pinnace, "agent", "--kubeconfig="+kubeconfig, "--node-name="+agentNode, "--data-dir="+filepath.Join(r.dir, "agent"),
		"--runtime-endpoint="+r.runtime.Config.Endpoint(), "--cgroup-root="+cgroupRoot, "--cni-conf-dir=", "--cluster-cidr="+podCIDR)
}

// kubeletConfig has what a machine with cgroup v1 and without CAP_SYS_RESOURCE needs, its folders, and no eviction for a full disk; all else is as it comes.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
oomScoreAdj: 0
containerRuntimeEndpoint: %[1]s
podLogsDir: %[2]s/kubelet-logs
volumePluginDir: %[2]s/kubelet-plugins
staticPodPath: ""
port: %[3]d
healthzPort: 0
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDNS: [10.97.0.10]
clusterDomain: cluster.local
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "1Mi", nodefs.available: "0%%", imagefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.inodesFree: "0%%"}
makeIPTablesUtilChains: false
%[4]s`

const unlimited = "kubeAPIQPS: 5000\nkubeAPIBurst: 10000\neventRecordQPS: 0\n"

// kubeletLeaves are what the kubelet changes outside its folders, as far as it is known: switches of the kernel, and folders.
var kubeletSwitches = []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}
var kubeletFolders = []string{"/var/log/containers", "/var/log/pods", "/var/lib/kubelet/device-plugins", "/var/lib/kubelet"}

func (r *rig) startKubelet() (supervise.Instance, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	limits := unlimited
	if r.KubeletDefaults {
		limits = ""
	}
	file := filepath.Join(r.dir, "kubelet.yaml")
	text := fmt.Sprintf(kubeletConfig, r.runtime.Config.Endpoint(), r.dir, port, limits)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if len(r.undo) == 0 {
		// The kubelet mounts its own folder onto itself and leaves that.
		r.undo = append(r.undo, remember(), func() error {
			if err := unix.Unmount(filepath.Join(r.dir, "kubelet"), unix.MNT_DETACH); !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		})
	}
	return r.start("kubelet", filepath.Join(r.assets, "kubelet"), "--config="+file, "--kubeconfig="+r.plane.KubeconfigPath(), "--hostname-override="+kubeletNode,
		"--root-dir="+filepath.Join(r.dir, "kubelet"), "--cert-dir="+filepath.Join(r.dir, "kubelet-pki"))
}

// remember returns what puts back the kernel's switches and removes the folders that weren't there.
func remember() func() error {
	values, missing := map[string][]byte{}, []string{}
	for _, name := range kubeletSwitches {
		if value, err := os.ReadFile("/proc/sys/" + name); err == nil {
			values[name] = value
		}
	}
	for _, dir := range kubeletFolders {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			missing = append(missing, dir)
		}
	}
	return func() error {
		var errs []error
		for name, value := range values {
			if now, err := os.ReadFile("/proc/sys/" + name); err == nil && string(now) != string(value) {
				errs = append(errs, os.WriteFile("/proc/sys/"+name, value, 0o644))
			}
		}
		for _, dir := range missing {
			errs = append(errs, os.RemoveAll(dir))
		}
		return errors.Join(errs...)
	}
}

// with runs a side, does something, removes all pods and ends the side.
func (r *rig) with(s *side, do func(pid int) error) (err error) {
	instance, err := s.start(r)
	if err != nil {
		return fmt.Errorf("starting the %s: %w", s.name, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), time.Minute)
		defer cancel()
		if err != nil {
			err = fmt.Errorf("%w; the %s's log ends with:\n  %s", err, s.name, strings.Join(supervise.Tail(filepath.Join(r.dir, s.name+".log"), 20), "\n  "))
		}
		// What the side leaves for a later clean-up must not cost the other one.
		err = errors.Join(err, instance.Stop(ctx), r.removeSandboxes(ctx), node.RemoveCgroups(cgroupRoot), node.RemoveCgroups(kubeletCgroup))
	}()
	if err := r.await("node "+s.node, func(ctx context.Context) error { return r.nodeReady(ctx, s) }); err != nil {
		return err
	}
	return do(instance.PID())
}

func (r *rig) removeSandboxes(ctx context.Context) error {
	sandboxes, err := r.runtime.CRI.ListPodSandbox(ctx, nil)
	for _, s := range sandboxes {
		err = errors.Join(err, r.runtime.CRI.StopPodSandbox(ctx, s.GetId()), r.runtime.CRI.RemovePodSandbox(ctx, s.GetId()))
	}
	return err
}

func (r *rig) nodeReady(ctx context.Context, s *side) error {
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": s.apiVersion, "kind": "Node"}}
	if err := r.client.Get(ctx, client.ObjectKey{Name: s.node}, object); err != nil {
		return err
	}
	if !ready(object) {
		return errors.New("it is not Ready")
	}
	return nil
}

// ready says whether a pod or node has the condition Ready.
func ready(object *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Ready" {
			return c["status"] == "True"
		}
	}
	return false
}
