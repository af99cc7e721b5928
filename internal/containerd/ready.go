// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
)

// Ready returns nil once containerd listens. That it also answers, and that its plugins have loaded, is for
// cri.Client.Ready to say: this room speaks no CRI.
func (c Config) Ready(ctx context.Context) error {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "unix", c.Socket())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("containerd has not opened its socket %s yet", c.Socket())
	}
	if err != nil {
		return fmt.Errorf("connecting to containerd: %w", err)
	}
	return connection.Close()
}
