// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package install puts Pinnace's kinds, roles and admission policies (package config) onto an API server: applied
// server-side, skipped when they are there unchanged. It is an adapter over the API server; internal/up and the
// command line enter, and it knows no other adapter.
package install
