// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machine runs `pinnace up` the way a person does — the built program, its printed lines, kubectl — for
// test/e2e and test/bench. It uses nothing of Pinnace's own packages but the API types' names on kubectl's command line.
package machine
