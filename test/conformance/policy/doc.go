// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy proves on a real API server what internal/install puts there beside the schemas: that the admission
// policies of config/policy refuse, warn and fill in as they say, that the roles reach whom they should, that kubectl's
// columns show, and that a second installation is quick. It holds tests alone; nobody imports it.
package policy
