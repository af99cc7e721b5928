// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command schema writes config/crd/bases: controller-gen's structural schemas of api/..., with what the upstream Go
// types don't carry as markers laid over them from overlay/<group>.yaml (defaults, enums, bounds, list-map keys,
// CEL rules, printer columns). It runs from the repository's root:
//
//	go run ./hack/schema            # write
//	go run ./hack/schema -check     # write nothing; fail when a file is stale
//
// Beside the CRDs it writes config/policy/pods.yaml (the rules of pods, see hoist.go), the roles of the manager and of the
// agents from +kubebuilder:rbac markers, and the generated part of each kind's page in docs/spec. The files
// overlay/<group>.yaml hold structure and columns, overlay/*.rules.yaml what upstream checks and fills in.
//
// An overlay that names a type, a field or a path that isn't there is an error, so that the overlay can't rot when
// upstream's types change. Nothing imports this room.
package main
