// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command assets builds the upstream programs that Pinnace stands on — etcd,
// kube-apiserver, containerd, runc and their company — from source, out of the
// Go module proxy, into bin/assets. No prebuilt binary is ever downloaded.
//
//	go run .                    everything that `pinnace up` needs
//	go run . controlplane       etcd, kube-apiserver, kubectl, kube-controller-manager
//	go run . node               containerd, its shim, runc, the CNI plugins, pause
//	go run . peers              what only comparisons with upstream need
//	go run . kubectl cni/bridge these two
//	go run . -list              what there is, at which version, and whether it is built
//
// # One module for each upstream
//
// Each folder beside this file is a Go module of its own that holds no code: its
// go.mod names upstream's main packages as tools, and its go.mod and go.sum pin
// what they are made of. They are kept apart because upstreams disagree: etcd,
// Kubernetes, containerd, runc and the CNI plugins each chose their own versions of
// grpc, OpenTelemetry, logrus and so on, and one module for all would build every
// one of them from a mixture that nobody has tested. Alone, each gets exactly
// the versions of its own release. The `go` line repeats upstream's as well,
// for it decides upstream's GODEBUG defaults.
//
// The kubernetes module needs one line more for each staging module:
// k8s.io/kubernetes asks for k8s.io/api v0.0.0 and replaces it by a folder of its own
// tree, which dependants cannot do; ours replaces it by the module published with
// the same release.
//
// # To raise a version
//
//	cd hack/assets/etcd && go get go.etcd.io/etcd/server/v3@v3.7.4 && go mod tidy
//
// For Kubernetes change the staging modules with it:
//
//	cd hack/assets/kubernetes
//	sed -i 's/v1\.37\.1/v1.37.2/; s/v0\.37\.1/v0.37.2/' go.mod && go mod tidy
//
// The version that a program prints is read from go.mod; it is written nowhere else.
//
// # Who may enter
//
// Nobody imports this module, and it imports the standard library only, so that
// it runs before anything has been downloaded. What is built and how stands in
// catalogue.go; recipe.go turns an entry into a command; stamp.go decides what is
// still fresh and build.go makes what isn't; system.go finds or installs what a
// build needs from the system; prebuilt.go takes binaries that are already there;
// main.go is the order of it all.
package main
