// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package condition sets, compares and bounds conditions. Upstream has a struct of its own for the conditions of
// each kind; a Codec lets one set of rules serve them all, and Verdict adds the three kstatus conditions to the
// same list. It is pure: the time comes in as an argument. Every floor above api may enter.
package condition
