// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package revision knows what makes one revision of a pod template: when two templates are equal, the hash that names
// a revision, the numbers and annotations that keep revisions in order, when a rollout is given up for the revision before,
// and how config becomes part of a revision. It is pure. Every controller whose kind
// has a template may enter.
package revision
