// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobStore keeps layers and image configurations as files that are named by their digest. What is there was verified
// when it came in, so looking at it costs no hashing. It is safe for concurrent use.
//
// It implements the registry's blob interfaces, except for uploads: the registry would collect them in memory, and a
// layer may have gigabytes. ServeUpload writes them to disk as they come.
type blobStore struct {
	dir string

	mu      sync.Mutex
	uploads map[string]*upload
}

// upload is a blob that is on its way in.
type upload struct {
	mu     sync.Mutex // one request at a time
	file   *os.File
	digest hash.Hash
	size   int64
}

func newBlobStore(dir string) (*blobStore, error) {
	if err := os.MkdirAll(filepath.Join(dir, "sha256"), 0o700); err != nil {
		return nil, fmt.Errorf("making the registry's folder: %w", err)
	}
	// What was under way when the last process ended will not go on.
	leftovers, err := filepath.Glob(filepath.Join(dir, "upload-*"))
	if err != nil {
		return nil, fmt.Errorf("looking for unfinished uploads: %w", err)
	}
	for _, path := range leftovers {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing an unfinished upload: %w", err)
		}
	}
	return &blobStore{dir: dir, uploads: map[string]*upload{}}, nil
}

func (s *blobStore) path(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" || len(h.Hex) != sha256.Size*2 {
		return "", registry.ErrNotFound
	}
	return filepath.Join(s.dir, "sha256", h.Hex), nil
}

// Stat implements registry.BlobStatHandler.
func (s *blobStore) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	path, err := s.path(h)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, registry.ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Get implements registry.BlobHandler.
func (s *blobStore) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	path, err := s.path(h)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, registry.ErrNotFound
	}
	return file, err
}

// begin opens a new upload and returns its name.
func (s *blobStore) begin() (string, *upload, error) {
	file, err := os.CreateTemp(s.dir, "upload-*")
	if err != nil {
		return "", nil, err
	}
	u := &upload{file: file, digest: sha256.New()}
	id := filepath.Base(file.Name())
	s.mu.Lock()
	s.uploads[id] = u
	s.mu.Unlock()
	return id, u, nil
}

func (s *blobStore) find(id string) *upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads[id]
}

// end forgets an upload and removes its file, if it is still there.
func (s *blobStore) end(id string, u *upload) {
	s.mu.Lock()
	delete(s.uploads, id)
	s.mu.Unlock()
	_ = u.file.Close()
	_ = os.Remove(u.file.Name())
}

func (u *upload) append(body io.Reader) error {
	n, err := io.Copy(io.MultiWriter(u.file, u.digest), body)
	u.size += n
	return err
}

// errDigest says that what came is not what was announced.
var errDigest = errors.New("the content has another digest than announced")

// commit gives an upload its final name.
func (s *blobStore) commit(u *upload, announced string) error {
	want, err := v1.NewHash(announced)
	if err != nil {
		return fmt.Errorf("%w: %w", errDigest, err)
	}
	path, err := s.path(want)
	if err != nil || hex.EncodeToString(u.digest.Sum(nil)) != want.Hex {
		return errDigest
	}
	if err := u.file.Sync(); err != nil {
		return err
	}
	return os.Rename(u.file.Name(), path)
}

// uploadOf splits the path of an upload request: /v2/<repository>/blobs/uploads/[id].
func uploadOf(path string) (repository, id string, ok bool) {
	rest, found := strings.CutPrefix(path, "/v2/")
	if !found {
		return "", "", false
	}
	repository, id, ok = strings.Cut(rest+"/", "/blobs/uploads/")
	return repository, strings.Trim(id, "/"), ok
}

// ServeUpload answers POST, PATCH and PUT below blobs/uploads, by the OCI distribution specification.
func (s *blobStore) ServeUpload(w http.ResponseWriter, r *http.Request, repository, id string) {
	var u *upload
	var err error
	switch r.Method {
	case http.MethodPost:
		if id, u, err = s.begin(); err != nil {
			refuse(w, http.StatusInternalServerError, "UNKNOWN", err)
			return
		}
	case http.MethodPatch, http.MethodPut:
		if u = s.find(id); u == nil {
			refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", errors.New("there is no such upload"))
			return
		}
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", fmt.Errorf("%s is not for uploads", r.Method))
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.append(r.Body); err != nil {
		s.end(id, u)
		refuse(w, http.StatusInternalServerError, "BLOB_UPLOAD_INVALID", err)
		return
	}
	digest := r.URL.Query().Get("digest")
	if r.Method == http.MethodPatch || digest == "" {
		w.Header().Set("Location", "/v2/"+repository+"/blobs/uploads/"+id)
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	err = s.commit(u, digest)
	s.end(id, u)
	switch {
	case errors.Is(err, errDigest):
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err)
	case err != nil:
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err)
	default:
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Location", "/v2/"+repository+"/blobs/"+digest)
		w.WriteHeader(http.StatusCreated)
	}
}

// refuse answers in the specification's form.
func refuse(w http.ResponseWriter, status int, code string, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, err.Error())
}
