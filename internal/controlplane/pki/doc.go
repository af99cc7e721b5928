// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pki keeps the certificate authorities and certificates of one
// control plane in a folder: authorities that live ten years, and leaf
// certificates that live one and are renewed when less than a third of that
// is left.
//
// The room touches files alone. Time is an argument, so that a test can move
// it. Only internal/controlplane and its tests enter; others are handed file
// names by it.
//
// There is one authority for each circle of trust, since whoever a server's
// authority has signed may speak to that server: etcd in particular has its
// own, as a client certificate of the API server must not open the store
// beneath it.
package pki
