// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-pinnace is kubectl's plugin: kubectl's own commands on Pinnace's kinds. What they don't hold it hands to
// the program pinnace. It is a program of its own so that kubectl's code costs the manager and the agents nothing.
package main

import (
	"os"

	"github.com/pinnace-dev/pinnace/internal/kubectl"
)

func main() { kubectl.Run(os.Args) }
