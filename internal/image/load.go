// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Annotations by which an OCI layout names its images: containerd's holds the full name, OCI's often the tag alone.
const (
	annotationContainerd = "io.containerd.image.name"
	annotationOCI        = "org.opencontainers.image.ref.name"
)

// Named is an image (or index) from a file, with its name.
type Named struct {
	Reference Reference
	Content   remote.Taggable
}

// Load reads the images of a tar file, as `docker save`, `podman save`, `ctr image export`, `skopeo copy oci-archive:` or
// hack/image write it, gzipped or not, and pushes each under its own name. It returns the full names, also of those
// that were pushed before an error.
func (c *Client) Load(ctx context.Context, tarPath string) ([]string, error) {
	images, release, err := ReadTar(tarPath)
	if err != nil {
		return nil, err
	}
	defer release()
	var refs []string
	for _, image := range images {
		if err := c.Push(ctx, image.Reference, image.Content); err != nil {
			return refs, fmt.Errorf("loading %s: %w", tarPath, err)
		}
		refs = append(refs, image.Reference.String())
	}
	return refs, nil
}

// ReadTar finds the images in a tar file. Their content is read when it is used; release ends that.
func ReadTar(path string) (images []Named, release func(), err error) {
	open := func() (io.ReadCloser, error) { return openTar(path) }
	kind, err := kindOf(open)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	release = func() {}
	switch {
	case kind.layout:
		images, release, err = readLayout(open)
		if errors.Is(err, errNoName) && kind.docker {
			images, err = readDocker(open)
		}
	case kind.docker:
		images, err = readDocker(open)
	default:
		err = errors.New("it holds no image: there is neither a manifest.json (docker save) nor an index.json (OCI layout) in it; make it with `docker save -o FILE.tar IMAGE`")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return images, release, nil
}

// openTar opens a tar file and unpacks gzip on the way.
func openTar(path string) (io.ReadCloser, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewReaderSize(file, 64<<10)
	magic, err := buffered.Peek(2)
	if err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return stream{buffered, file}, nil
	}
	unpacked, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return stream{unpacked, file}, nil
}

type stream struct {
	io.Reader
	io.Closer
}

type tarKind struct{ docker, layout bool }

// kindOf looks at the names in a tar file. Docker since version 25 writes both sorts into one file.
func kindOf(open tarball.Opener) (tarKind, error) {
	file, err := open()
	if err != nil {
		return tarKind{}, err
	}
	defer func() { _ = file.Close() }()
	var kind tarKind
	reader := tar.NewReader(file)
	for entries := 0; ; entries++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return kind, nil
		}
		if err != nil {
			if entries == 0 {
				return kind, fmt.Errorf("it is no tar file: %w", err)
			}
			return kind, fmt.Errorf("the tar file is damaged or cut short: %w", err)
		}
		switch filepath.Clean(header.Name) {
		case "manifest.json":
			kind.docker = true
		case "index.json":
			kind.layout = true
		}
	}
}

// errNoName is for files whose images say no name.
var errNoName = errors.New("its image has no name: save it by name (`docker save -o FILE.tar NAME:TAG`), not by its id")

func readDocker(open tarball.Opener) ([]Named, error) {
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, fmt.Errorf("its manifest.json is damaged: %w", err)
	}
	var images []Named
	for _, descriptor := range manifest {
		for _, repoTag := range descriptor.RepoTags {
			ref, err := ParseReference(repoTag)
			if err != nil {
				return nil, err
			}
			tag, err := name.NewTag(repoTag, name.WeakValidation)
			if err != nil {
				return nil, err
			}
			image, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, fmt.Errorf("its image %s is damaged: %w", repoTag, err)
			}
			images = append(images, Named{ref, image})
		}
	}
	if len(images) == 0 {
		return nil, errNoName
	}
	return images, nil
}

// readLayout unpacks an OCI layout into a temporary folder, since its files may stand in any order.
func readLayout(open tarball.Opener) ([]Named, func(), error) {
	dir, err := os.MkdirTemp("", "pinnace-image-")
	if err != nil {
		return nil, nil, err
	}
	release := func() { _ = os.RemoveAll(dir) }
	images, err := unpackLayout(open, dir)
	if err != nil {
		release()
		return nil, func() {}, err
	}
	return images, release, nil
}

func unpackLayout(open tarball.Opener, dir string) ([]Named, error) {
	if err := unpack(open, dir); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("its index.json is damaged: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("its index.json is damaged: %w", err)
	}
	var images []Named
	for _, descriptor := range manifest.Manifests {
		ref, named, err := nameOf(descriptor)
		if err != nil {
			return nil, err
		}
		if !named {
			continue
		}
		content, err := contentOf(index, descriptor)
		if err != nil {
			return nil, fmt.Errorf("its image %s is damaged: %w", ref, err)
		}
		images = append(images, Named{ref, content})
	}
	if len(images) == 0 {
		return nil, errNoName
	}
	return images, nil
}

func nameOf(descriptor v1.Descriptor) (ref Reference, named bool, err error) {
	full := descriptor.Annotations[annotationContainerd]
	if full == "" {
		full = descriptor.Annotations[annotationOCI]
		// A tag alone ("v1") would be read as an image of Docker's; only what looks like a name counts as one.
		if !strings.ContainsAny(full, "/:") {
			return Reference{}, false, nil
		}
	}
	ref, err = ParseReference(full)
	return ref, err == nil, err
}

func contentOf(index v1.ImageIndex, descriptor v1.Descriptor) (remote.Taggable, error) {
	if descriptor.MediaType.IsIndex() {
		return index.ImageIndex(descriptor.Digest)
	}
	return index.Image(descriptor.Digest)
}

// unpack writes the regular files of a layout. Nothing outside dir can be reached: os.Root refuses.
func unpack(open tarball.Opener, dir string) error {
	file, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	reader := tar.NewReader(file)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the tar file is damaged or cut short: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := unpackFile(root, filepath.Clean(header.Name), reader); err != nil {
			return fmt.Errorf("unpacking %s: %w", header.Name, err)
		}
	}
}

func unpackFile(root *os.Root, name string, content io.Reader) error {
	if parent := filepath.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
