// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"net"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// NewClient is a manager's NewClient function. The client reads from the cache as usual, but writes over a connection of
// its own: on one HTTP/2 connection about a hundred streams share one window, and many writers starve the watches
// until the server cuts them.
func NewClient(config *rest.Config, options client.Options) (client.Client, error) {
	own := rest.CopyConfig(config)
	// A dialer of our own keeps client-go from handing out the transport that the watches use.
	own.Dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	own.QPS = -1 // the API server's own fairness limits us better than a bucket here
	httpClient, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("making the connection for writes: %w", err)
	}
	options.HTTPClient = httpClient
	c, err := client.New(own, options)
	if err != nil {
		return nil, fmt.Errorf("making the client for writes: %w", err)
	}
	return c, nil
}
