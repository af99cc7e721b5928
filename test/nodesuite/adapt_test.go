// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import "github.com/pinnace-dev/pinnace/internal/setup"

// adapt sets what only the suite wants of the agent.
func adapt(_ *setup.AgentOptions, _ *world) {}
