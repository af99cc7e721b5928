// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package content reads containerd's content store on disk, for the one thing that CRI has no call for: how far pulls are. It only
// reads names and sizes, and small manifests; a store that isn't there or looks otherwise is no error but unknown. The layout
// (blobs/sha256/DIGEST, and ingest/ID/{ref,data} for what is on its way) is the same in containerd 1.6 and 2.x. Only
// internal/setup enters.
package content
