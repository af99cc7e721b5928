// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import "testing"

// disturbances change the machine under its pods, so they run alone.
var disturbances = []struct {
	name string
	run  func(t *testing.T, w *world) error
}{}
