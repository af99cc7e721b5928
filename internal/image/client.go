// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Client pushes images into a registry and lists them. It is safe for concurrent use.
type Client struct {
	address   string
	transport http.RoundTripper
}

// NewClient prepares a client of the registry's first address.
func NewClient(info Info) (*Client, error) {
	if len(info.Addresses) == 0 {
		return nil, errors.New("the image registry has no address")
	}
	pair, err := tls.LoadX509KeyPair(info.ClientCertFile, info.ClientKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate for the image registry: %w", err)
	}
	pool, err := readPool(info.CAFile)
	if err != nil {
		return nil, err
	}
	return &Client{
		address: info.Addresses[0],
		transport: &http.Transport{
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool},
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     5 * time.Second,
		},
	}, nil
}

func (c *Client) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(c.transport),
		remote.WithJobs(2),
		// The registry is on this machine: what fails once fails again.
		remote.WithRetryBackoff(remote.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Steps: 2}),
	}
}

// target is the image's name in the registry.
func (c *Client) target(ref Reference) (name.Reference, error) {
	target, err := name.ParseReference(c.address + "/" + strings.TrimPrefix(Reference{
		Registry: "", Repository: ref.repository(), Identifier: ref.Identifier,
	}.String(), "/"))
	if err != nil {
		return nil, fmt.Errorf("naming the image %s in the registry: %w", ref, err)
	}
	return target, nil
}

// Push puts one image, or an index of images for several platforms, into the registry under its full name.
func (c *Client) Push(ctx context.Context, ref Reference, content remote.Taggable) error {
	target, err := c.target(ref)
	if err != nil {
		return err
	}
	switch content := content.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(target, content, c.options(ctx)...)
	case v1.Image:
		err = remote.Write(target, content, c.options(ctx)...)
	default:
		return fmt.Errorf("the image %s is neither an image nor an index", ref)
	}
	if err != nil {
		return fmt.Errorf("pushing the image %s: %w", ref, c.explain(err))
	}
	return nil
}

// Item is one image in the registry.
type Item struct {
	Reference Reference
	// Digest of its manifest.
	Digest string
	// Bytes that its layers take, compressed; for an index the sum over its images is not counted: 0.
	Bytes int64
}

// List returns the images with a tag, sorted by name.
func (c *Client) List(ctx context.Context) ([]Item, error) {
	host, err := name.NewRegistry(c.address)
	if err != nil {
		return nil, fmt.Errorf("naming the registry: %w", err)
	}
	repositories, err := remote.Catalog(ctx, host, c.options(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("listing the images: %w", c.explain(err))
	}
	var items []Item
	for _, repository := range repositories {
		tags, err := remote.List(host.Repo(repository), c.options(ctx)...)
		if err != nil {
			return nil, fmt.Errorf("listing the tags of %s: %w", repository, c.explain(err))
		}
		for _, tag := range tags {
			descriptor, err := remote.Get(host.Repo(repository).Tag(tag), c.options(ctx)...)
			if err != nil {
				return nil, fmt.Errorf("looking at the image %s:%s: %w", repository, tag, c.explain(err))
			}
			item := Item{Reference: fromRepository(repository, tag), Digest: descriptor.Digest.String()}
			if manifest, err := manifestOfImage(descriptor); err == nil {
				for _, layer := range manifest.Layers {
					item.Bytes += layer.Size
				}
			}
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Reference.String(), b.Reference.String()) })
	return items, nil
}

func manifestOfImage(descriptor *remote.Descriptor) (*v1.Manifest, error) {
	if !descriptor.MediaType.IsImage() {
		return nil, errors.New("it is an index")
	}
	image, err := descriptor.Image()
	if err != nil {
		return nil, err
	}
	return image.Manifest()
}

// explain adds the way out to errors that have one.
func (c *Client) explain(err error) error {
	var network *net.OpError
	var answer *transport.Error
	switch {
	case errors.As(err, &network) && network.Op == "dial":
		return fmt.Errorf("the image registry at %s doesn't answer; is `pinnace up` still running? %w", c.address, err)
	case errors.As(err, &answer) && strings.Contains(answer.Error(), "no space left"):
		return fmt.Errorf("the disk of the data folder is full: make room there: %w", err)
	}
	return err
}
