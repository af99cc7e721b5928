// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package podgc ends pods that no agent will ever end: those bound to a node that isn't there any longer. It takes their
// finalizer away and deletes them, so that their owners make new ones and nothing waits for ever. Only internal/setup enters.
package podgc
