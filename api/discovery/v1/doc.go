// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1 holds the discovery.pinnace.dev/v1 kinds: upstream's, field for field, with Pinnace's extensions beside
// them. Every room may import it; it imports only apimachinery, k8s.io/api and its sibling api/core/v1.
//
// +kubebuilder:object:generate=true
// +groupName=discovery.pinnace.dev
package v1
