// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package workload holds what every controller that owns pods decides alike: which pods are its own, which are ready and
// available, what new pods are called, which pods go first, and what is wrong with the first one that fails. It is
// pure: pods and the time come in, decisions go out. The controllers of apps and batch may enter.
package workload
