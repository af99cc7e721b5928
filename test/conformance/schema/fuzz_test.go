// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package schema

func fuzzCases(map[string][]group) []testCase { return nil }
