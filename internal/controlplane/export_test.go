// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

// Collect is for tests, which can't wait for a machine at rest.
var Collect = collect
