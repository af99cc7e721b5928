// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config holds what a cluster needs before Pinnace's processes run: the CRDs that hack/schema generates, the
// roles and the admission policies, and kustomize bases over them. The files are embedded so that the one binary can
// install them; only internal/install enters.
package config

import "embed"

// Files holds the manifests by their path under this folder.
//
//go:embed crd/bases/*.yaml default/*.yaml rbac/*.yaml policy/*.yaml simulator/*.yaml
var Files embed.FS
