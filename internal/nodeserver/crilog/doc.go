// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package crilog reads containers' logs from the files that a container runtime writes: lines of
// "TIME STREAM P|F text", of which P is a part that the next line goes on with. It follows a file through rotation
// by renaming. The rules are those of kubectl logs. internal/nodeserver enters.
package crilog
