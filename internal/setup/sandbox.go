// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import "github.com/pinnace-dev/pinnace/internal/runtime"

// writeSandboxProfile writes it into the agent's data folder, which a runtime sees at the same path anyway: the pods' volumes are there.
func writeSandboxProfile(dataDir string) (string, error) { return runtime.WriteSandboxProfile(dataDir) }
