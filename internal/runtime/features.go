// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import "context"

// Features are what not every runtime can do. The zero value can do none of it, as containerd 1.6.
type Features struct {
	// RecursiveReadOnlyMounts and UserNamespaces are those of the runtime's default handler.
	RecursiveReadOnlyMounts, UserNamespaces bool
	// SupplementalGroupsPolicy says that the policy Strict is minded.
	SupplementalGroupsPolicy bool
}

// Featured is a runtime that can say what it can do.
type Featured interface {
	Features(ctx context.Context) (Features, error)
}
