// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package routes keeps a node's place in the pods' network: the CNI configuration of its own pod networks, once it has some, and
// the routes to the pods of all other nodes. It runs in the agent, in the node's network namespace. Without a node's name
// it serves a machine that hosts nodes in namespaces of their own and is none itself: it then leads to all pods, and to
// services through one of the nodes.
package routes
