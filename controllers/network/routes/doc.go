// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package routes keeps the routes of a node to the pods of all other nodes. It runs in the agent, in the node's network
// namespace.
package routes
