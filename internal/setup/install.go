// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"

	"github.com/pinnace-dev/pinnace/internal/install"
)

// Install puts Pinnace's kinds, roles and policies onto the API server of a kubeconfig.
func Install(ctx context.Context, kubeconfig string) error {
	config, err := restConfig(kubeconfig)
	if err != nil {
		return err
	}
	return install.Install(ctx, config, install.Options{})
}
