// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package volume makes what pods mount, on this machine's disk: emptyDir, hostPath, and files (ConfigMap, Secret, downward API,
// projected), whose updates reach a running pod all at once; and safe subPaths.
//
// All lies below one folder, by the pod's UID, so that a restart of the agent finds it again:
//
//	ROOT/pods/UID/volumes/NAME          an emptyDir, or files through ..data
//	ROOT/pods/UID/subpaths/CONTAINER/N  a subPath, bind-mounted, so that it can't be swapped under the runtime
//	ROOT/pods/UID/etc-hosts             the pod's /etc/hosts
//	ROOT/pods/UID/containers/NAME/N     the termination message of the Nth start
//
// Only controllers/agent and internal/setup enter. The package is for Linux.
package volume
