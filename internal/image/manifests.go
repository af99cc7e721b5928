// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// manifestStore remembers manifests on disk, so that the registry, which keeps them in memory, has them again after
// a restart.
type manifestStore struct{ dir string }

// storedManifest is one file of the store.
type storedManifest struct {
	Repository string `json:"repository"`
	// Reference is a tag or a digest.
	Reference string `json:"reference"`
	MediaType string `json:"mediaType"`
	Manifest  []byte `json:"manifest"`
}

func (s manifestStore) file(repository, reference string) string {
	return filepath.Join(s.dir, url.PathEscape(repository), url.PathEscape(reference)+".json")
}

// put writes a manifest durably.
func (s manifestStore) put(m storedManifest) error {
	path := s.file(m.Repository, m.Reference)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keeping a manifest: %w", err)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("keeping a manifest: %w", err)
	}
	if err := writeFile(path, data, 0o600); err != nil {
		return fmt.Errorf("keeping a manifest: %w", err)
	}
	return nil
}

func (s manifestStore) remove(repository, reference string) error {
	if err := os.Remove(s.file(repository, reference)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a manifest: %w", err)
	}
	return nil
}

// all reads every manifest. Those that can't be read are named in the error; the others are returned all the same.
func (s manifestStore) all() ([]storedManifest, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "*", "*.json"))
	if err != nil {
		return nil, fmt.Errorf("looking for manifests: %w", err)
	}
	var stored []storedManifest
	var damaged []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		var m storedManifest
		if err := json.Unmarshal(data, &m); err != nil {
			damaged = append(damaged, fmt.Errorf("the manifest %s is damaged; load its image again: %w", file, err))
			continue
		}
		stored = append(stored, m)
	}
	// Images stand before the indexes that list them: the registry refuses an index with unknown members. An index in
	// an index stands after it by its number of levels, of which nobody makes more than two.
	slices.SortStableFunc(stored, func(a, b storedManifest) int { return a.level() - b.level() })
	return stored, errors.Join(damaged...)
}

// level is 0 for an image, 1 for an index of images, 2 for an index of indexes.
func (m storedManifest) level() int {
	if !types.MediaType(m.MediaType).IsIndex() {
		return 0
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(m.Manifest))
	if err != nil {
		return 2
	}
	if slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.MediaType.IsIndex() }) {
		return 2
	}
	return 1
}

// replay puts the manifest into a registry's handler.
func (m storedManifest) replay(handler http.Handler) error {
	request := httptest.NewRequest(http.MethodPut, "/v2/"+m.Repository+"/manifests/"+m.Reference, bytes.NewReader(m.Manifest))
	request.Header.Set("Content-Type", m.MediaType)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	if answer.Code != http.StatusCreated {
		return fmt.Errorf("taking up the image %s again: %s", fromRepository(m.Repository, m.Reference), strings.TrimSpace(answer.Body.String()))
	}
	return nil
}

// blobs are the digests of what an image's manifest names.
func (m storedManifest) blobs() []string {
	image, err := v1.ParseManifest(bytes.NewReader(m.Manifest))
	if err != nil {
		return nil
	}
	digests := []string{image.Config.Digest.Hex}
	for _, layer := range image.Layers {
		digests = append(digests, layer.Digest.Hex)
	}
	return digests
}

// writeFile replaces a file so that it is whole at any time, also after a power cut.
func writeFile(path string, data []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	if err := errors.Join(file.Chmod(mode), second(file.Write(data)), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func second(_ int, err error) error { return err }
