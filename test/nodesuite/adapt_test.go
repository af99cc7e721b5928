// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"time"

	"github.com/pinnace-dev/pinnace/internal/setup"
)

// adapt sets what only the suite wants of the agent: a DNS of the cluster, which nobody asks, and quick looks at what is left.
func adapt(o *setup.AgentOptions) {
	o.Resources.ClusterDNS = []string{clusterDNS}
	o.Keep.TidyEvery = 5 * time.Second
}

const clusterDNS = "10.216.0.10"
