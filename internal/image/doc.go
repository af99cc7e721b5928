// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

// Package image is the image registry on localhost, and what brings images into it.
//
// The registry (go-containerregistry's, with storage on disk) keeps images under their full names: the image
// docker.io/library/x:1 is the repository docker.io/library/x. containerd asks it first for every image of every
// registry, since hosts.toml (WriteHosts) makes it the first mirror of all; what it doesn't have comes from the
// image's own registry. So `pinnace image load hello.tar` makes `image: pinnace.dev/hello:v1` simply work.
//
// Whoever may push into the registry decides what runs in containers, so each listener asks for a client certificate.
// The certificates come from outside (internal/controlplane/pki): this room takes their files.
//
// cmd/pinnace enters (up serves, image loads), as do hack/image, which makes small images, and tests that run containers.
package image
