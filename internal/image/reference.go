// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// dockerHub is how images of Docker's registry name it; go-containerregistry says index.docker.io.
const dockerHub = "docker.io"

// Reference is an image's full name, as containerd sees it.
type Reference struct {
	// Registry is the registry's host, with its port if any, such as docker.io or localhost:5000.
	Registry string
	// Repository is the path in it, such as library/nginx.
	Repository string
	// Identifier is a tag, or a digest such as sha256:….
	Identifier string
}

// ParseReference reads an image's name as people write it: short names are Docker's, and no tag means latest.
func ParseReference(ref string) (Reference, error) {
	parsed, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return Reference{}, fmt.Errorf("%q is no image name (give one such as pinnace.dev/hello:v1): %w", ref, err)
	}
	registry := parsed.Context().RegistryStr()
	if registry == name.DefaultRegistry {
		registry = dockerHub
	}
	return Reference{Registry: registry, Repository: parsed.Context().RepositoryStr(), Identifier: parsed.Identifier()}, nil
}

// String is the full name.
func (r Reference) String() string {
	separator := ":"
	if strings.Contains(r.Identifier, ":") {
		separator = "@"
	}
	return r.Registry + "/" + r.Repository + separator + r.Identifier
}

// repository is the image's repository in the registry on localhost.
func (r Reference) repository() string { return mirrorPath(r.Registry) + "/" + r.Repository }

// mirrorPath makes a registry's host the first part of a repository's name, where a colon is not allowed. No host
// contains an underscore, so the way back is unique.
func mirrorPath(host string) string { return strings.ReplaceAll(host, ":", "__") }

// fromRepository is the inverse of Reference.repository.
func fromRepository(repository, identifier string) Reference {
	host, path, _ := strings.Cut(repository, "/")
	return Reference{Registry: strings.ReplaceAll(host, "__", ":"), Repository: path, Identifier: identifier}
}
