// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane starts etcd, kube-apiserver and, with the generic loops
// alone, kube-controller-manager: the control plane of `pinnace up`, and of
// tests.
//
// etcd and kube-apiserver are started through controller-runtime's envtest
// package. Its defaults are made for tests that live for minutes; the profile
// Durable changes each of them that would lose or leak what people keep, and
// Ephemeral leaves them. docs/adr/0010 tells how supervision goes through
// envtest.
//
// What lies in the data folder of the durable profile:
//
//	lock            held while a program uses the folder (LockDataDir)
//	kubeconfig      of the administrator, complete in itself, 0600
//	kubeconfigs/    of everybody else, naming files in pki/
//	pki/            authorities and certificates (package pki)
//	config/         encryption key and authentication rules of kube-apiserver
//	etcd/           the data
//	log/            one log for each process, and the audit log
//	run/            start scripts and pid files
//
// internal/setup, cmd and test/env enter. The room knows internal/supervise,
// and no other adapter.
package controlplane
