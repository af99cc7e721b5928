// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Binary says how to make an image of one statically linked program and nothing else.
type Binary struct {
	// Path is the program on this machine; in the image it lies at the root under the same name.
	Path string
	// Entrypoint defaults to the program alone.
	Entrypoint []string
	// Ports are documentation, such as "8080/tcp".
	Ports []string
	// User defaults to 65532:65532, which is nobody in particular.
	User string
}

// Build makes the image, for this machine's processor. The same program gives the same image, byte for byte.
func (b Binary) Build() (v1.Image, error) {
	program, err := os.ReadFile(b.Path)
	if err != nil {
		return nil, fmt.Errorf("reading the program for the image: %w", err)
	}
	if !bytes.HasPrefix(program, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%s is no Linux program, and an image from scratch has nothing that could run it", b.Path)
	}
	files, err := tarOf(filepath.Base(b.Path), program)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		return nil, fmt.Errorf("making the image's layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("making the image: %w", err)
	}
	entrypoint := b.Entrypoint
	if len(entrypoint) == 0 {
		entrypoint = []string{"/" + filepath.Base(b.Path)}
	}
	user := b.User
	if user == "" {
		user = "65532:65532"
	}
	ports := map[string]struct{}{}
	for _, port := range b.Ports {
		ports[port] = struct{}{}
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS:       mustRootFS(image),
		Config:       v1.Config{Entrypoint: entrypoint, User: user, ExposedPorts: ports, WorkingDir: "/"},
	})
	if err != nil {
		return nil, fmt.Errorf("making the image's configuration: %w", err)
	}
	return image, nil
}

// mustRootFS keeps the list of layers that mutate has made.
func mustRootFS(image v1.Image) v1.RootFS {
	config, err := image.ConfigFile()
	if err != nil {
		return v1.RootFS{Type: "layers"} // It comes from memory and can't fail; an empty list would be refused by the runtime.
	}
	return config.RootFS
}

// tarOf packs one executable file without anything that changes from build to build.
func tarOf(name string, content []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := errors.Join(w.WriteHeader(header), second(w.Write(content)), w.Close()); err != nil {
		return nil, fmt.Errorf("packing the program: %w", err)
	}
	return b.Bytes(), nil
}

// WriteTar writes an image under a name as `docker save` does, for `pinnace image load`.
func WriteTar(path, ref string, image v1.Image) error {
	if _, err := ParseReference(ref); err != nil {
		return err
	}
	tag, err := name.NewTag(ref, name.WeakValidation)
	if err != nil {
		return fmt.Errorf("%q is no image name with a tag: %w", ref, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the folder for the image: %w", err)
	}
	next := path + ".new"
	if err := tarball.WriteToFile(next, tag, image); err != nil {
		return errors.Join(fmt.Errorf("writing the image: %w", err), os.Remove(next))
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	return nil
}

// BuildSingleBinary makes an image of one program and writes it as a tar file.
func BuildSingleBinary(binaryPath, ref string, entrypoint, ports []string, user, tarPath string) error {
	image, err := Binary{Path: binaryPath, Entrypoint: entrypoint, Ports: ports, User: user}.Build()
	if err != nil {
		return err
	}
	return WriteTar(tarPath, ref, image)
}
