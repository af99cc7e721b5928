// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package house tests the structure of the house itself: that the linter refuses an import which breaks a floor.
package house
