// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package access keeps what the agent of each node may read: for each node and namespace a Role that names the ConfigMaps, Secrets
// and service accounts of the pods on that node, and nothing more, with a RoleBinding to the agent's user. So a stolen agent
// credential is worth what runs on that node. docs/adr/0035 says why it is done by roles. Only internal/setup enters.
package access
