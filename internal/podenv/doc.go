// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package podenv puts a container's environment together: values, references to ConfigMaps, Secrets, fields and
// resources, envFrom with prefix, and the expansion of $(VAR) in values, commands and arguments.
//
// Everything is pure: the caller brings what the references point to (Objects), found by References. The node agent
// enters, and the volume room for downward API files. Semantics and messages are the kubelet's
// (kubelet_pods.go, makeEnvironmentVariables; third_party/forked/golang/expansion).
package podenv
