// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command scale measures Pinnace beside upstream's kube-controller-manager and kube-scheduler on simulated nodes: how
// many pods a second a Deployment of 1,000 pods reaches from its creation and in a rolling update, what each side's
// processes spend for it, and how many API writes a pod costs; and what 10,000 pods at rest on 500 nodes cost Pinnace's manager.
//
// Each round of each side has an API server, an etcd and a data folder of its own, all of the same build, with the same
// flags. docs/bench.md says what stands for the kubelet, and why.
//
//	go run ./test/bench/scale -rounds 3
package main
