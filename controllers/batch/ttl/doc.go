// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ttl deletes Jobs that have been finished for longer than their spec.ttlSecondsAfterFinished says, with their pods. It writes
// nothing else. Only internal/setup enters.
package ttl
