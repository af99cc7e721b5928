// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
)

// PauseReference is the name of the image that holds each pod's namespaces; containerd's configuration names it too.
const PauseReference = "pinnace.dev/pause:1"

// PushPause makes the pause image from the static pause program and puts it into the registry. Doing it again changes nothing.
func (c *Client) PushPause(ctx context.Context, pauseProgram string) error {
	image, err := Binary{Path: pauseProgram, User: "65535:65535"}.Build()
	if err != nil {
		return err
	}
	ref, err := ParseReference(PauseReference)
	if err != nil {
		return err
	}
	return c.Push(ctx, ref, image)
}
