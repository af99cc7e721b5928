// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package suffix is the suffix rule: which upstream kind has which Pinnace
// kind, in both directions, and where inside an object other objects are named
// by their apiVersion.
//
// A Pinnace kind is the upstream kind, field for field, at the upstream
// version, in the upstream group with ".k8s.io" taken off and ".pinnace.dev"
// put on; the group without a name becomes "core.pinnace.dev".
//
// Who may enter: every room that has to translate between the two, such as
// `pinnace convert` and the schema oracle. The package is a table and pure
// look-ups over apimachinery's schema types; it imports nothing else.
package suffix
