// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// askTimeout bounds a question that only makes a message better.
const askTimeout = 5 * time.Second

// Refuses asks an image's own registry, past all mirrors, whether it wants another login than this one; without a user name, any at all.
// A runtime doesn't tell: a mirror's word that it has no such image wins over the registry's that it wants a password.
// An error means that the registry couldn't be asked.
func Refuses(ctx context.Context, image, username, password string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return false, fmt.Errorf("reading the name of the image: %w", err)
	}
	login := authn.Anonymous
	if username != "" {
		login = authn.FromConfig(authn.AuthConfig{Username: username, Password: password})
	}
	// Get, since the answer to a HEAD has no body that could say why.
	_, err = remote.Get(ref, remote.WithContext(ctx), remote.WithAuth(login), remote.WithRetryStatusCodes())
	var answer *transport.Error
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &answer):
		return answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden, nil
	}
	return false, fmt.Errorf("asking the registry of %s: %w", image, err)
}
