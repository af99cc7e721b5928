// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command schema writes config/crd/bases: controller-gen's structural schemas of api/..., with what the upstream Go
// types don't carry as markers laid over them from overlay/<group>.yaml (defaults, enums, bounds, list-map keys,
// CEL rules, printer columns). It runs from the repository's root:
//
//	go run ./hack/schema            # write
//	go run ./hack/schema -check     # write nothing; fail when a file is stale
//
// An overlay that names a type, a field or a path that isn't there is an error, so that the overlay can't rot when
// upstream's types change. Nothing imports this room.
package main
