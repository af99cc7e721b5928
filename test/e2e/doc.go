// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the built program as a user does: `pinnace up`, kubectl, real containers. It needs root and the
// assets; without root it says loudly what it skips.
package e2e
