// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package floor runs pods through CRI as fast as the runtime lets it, and measures. test/bench and its program crifloor enter.
package floor
