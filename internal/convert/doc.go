// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package convert rewrites streams of Kubernetes YAML or JSON by the suffix
// rule: upstream kinds become Pinnace kinds, or back.
//
// A parser finds where each apiVersion stands, and only the bytes of that value
// are replaced: order, comments, quoting, anchors, blank lines and documents
// that the rule doesn't cover stay as they were. Each rewritten document is
// parsed again and compared with the original, value by value, before it is
// believed.
//
//	bytes ─ split ─▶ documents ─ parse ─▶ nodes with offsets ─ walk ─▶ edits ─ apply, verify ─▶ bytes
//
// Who may enter: the program's convert command, and tests that need the corpus
// in Pinnace's kinds. Everything but Read is a pure function of its input.
package convert
