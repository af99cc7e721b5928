// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// An asset is one program below bin/assets.
type asset struct {
	// name is its path below bin/assets, and its name on the command line.
	name   string
	recipe recipe
}

// A group is what the command line calls by one name. Assets are built in the
// order in which they stand here: what others wait for comes first.
type group struct {
	name, purpose string
	assets        []asset
	// tools are system programs that the assets call when they run.
	tools []tool
	// linuxOnly marks assets that build on no other system.
	linuxOnly bool
}

// everything is the target that stands for all that `pinnace up` needs.
const everything = "all"

var controlPlane = group{
	name:    "controlplane",
	purpose: "the API server and its company; enough for tests and simulated nodes",
	assets: []asset{
		{"etcd", goProgram{module: "etcd", upstream: "go.etcd.io/etcd/server/v3"}},
		{"kube-apiserver", kubernetes("kube-apiserver")},
		{"kubectl", kubernetes("kubectl")},
		{"kube-controller-manager", kubernetes("kube-controller-manager")},
	},
}

var node = group{
	name:      "node",
	purpose:   "the runtime that a node agent drives",
	linuxOnly: true,
	tools:     []tool{nft, ip},
	assets: []asset{
		{"containerd", containerd("containerd")},
		{"containerd-shim-runc-v2", containerd("containerd-shim-runc-v2", "no_grpc")},
		{"runc", goProgram{
			module:   "runc",
			upstream: "github.com/opencontainers/runc",
			// Seccomp filters are made by a C library, which is linked in so that
			// runc depends on nothing of the machine on which it runs.
			cgo:     true,
			tags:    []string{"seccomp", "netgo", "osusergo"},
			ldflags: func(string) string { return "-linkmode external -extldflags -static" },
			tools:   []tool{gcc, staticLibc, pkgConfig, seccomp},
		}},
		{"pause", cProgram{source: "../pause/pause.c", release: "1.0"}},
		{"cni/bridge", cni("main/bridge")},
		{"cni/host-local", cni("ipam/host-local")},
		{"cni/loopback", cni("main/loopback")},
		{"cni/portmap", cni("meta/portmap")},
		{"cni/ptp", cni("main/ptp")},
		{"cni/firewall", cni("meta/firewall")},
	},
}

var peers = group{
	name:      "peers",
	purpose:   "upstream's counterparts, against which oracles and benchmarks measure Pinnace",
	linuxOnly: true,
	assets: []asset{
		{"kube-scheduler", kubernetes("kube-scheduler")},
		{"kwok", goProgram{
			module:   "kwok",
			upstream: "sigs.k8s.io/kwok",
			pkg:      "cmd/kwok",
			ldflags:  func(version string) string { return setVariables("sigs.k8s.io/kwok/pkg/consts", "Version="+version) },
		}},
		// Upstream releases its kubelet with cgo, which only exchanges the resolver and
		// the look-up of users, and compiles all of it anew for minutes.
		{"kubelet", kubernetes("kubelet")},
		{"kube-proxy", kubernetes("kube-proxy")},
	},
}

// groups are all the groups, in the order in which they are built.
var groups = []group{controlPlane, node, peers}

// kubernetes is a program of k8s.io/kubernetes, with the build tags of its own releases.
func kubernetes(program string) goProgram {
	return goProgram{
		module:   "kubernetes",
		upstream: "k8s.io/kubernetes",
		pkg:      "cmd/" + program,
		tags:     []string{"selinux", "notest", "grpcnotrace"},
		ldflags: func(version string) string {
			number := strings.Split(strings.TrimPrefix(version, "v"), ".")
			values := []string{
				"gitVersion=" + version, "gitMajor=" + number[0], "gitMinor=" + number[1],
				"gitCommit=unknown", "gitTreeState=archive",
			}
			// kubectl's version and the user agent of every client are set apart.
			return setVariables("k8s.io/component-base/version", values...) + " " +
				setVariables("k8s.io/client-go/pkg/version", values...)
		},
	}
}

// containerd is a program of containerd, with the build tags of its static
// releases. The daemon refuses a shim of another version, so both are built from one module.
func containerd(program string, tags ...string) goProgram {
	return goProgram{
		module:   "containerd",
		upstream: "github.com/containerd/containerd/v2",
		pkg:      "cmd/" + program,
		tags:     append([]string{"urfave_cli_no_docs", "osusergo", "netgo", "static_build"}, tags...),
		ldflags: func(version string) string {
			return setVariables("github.com/containerd/containerd/v2/version", "Version="+version)
		},
	}
}

// cni is a plugin of the CNI project's own collection.
func cni(plugin string) goProgram {
	const upstream = "github.com/containernetworking/plugins"
	return goProgram{
		module:   "cni",
		upstream: upstream,
		pkg:      "plugins/" + plugin,
		ldflags: func(version string) string {
			return setVariables(upstream+"/pkg/utils/buildversion", "BuildVersion="+version)
		},
	}
}

// setVariables are the linker flags that set string variables of a package.
func setVariables(pkg string, assignments ...string) string {
	flags := make([]string, 0, len(assignments))
	for _, assignment := range assignments {
		flags = append(flags, "-X "+pkg+"."+assignment)
	}
	return strings.Join(flags, " ")
}
