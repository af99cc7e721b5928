// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// maxManifestBytes bounds a manifest, as the distribution specification proposes.
const maxManifestBytes = 4 << 20

// Registry is the image registry. It is safe for concurrent use.
type Registry struct {
	blobs     *blobStore
	manifests manifestStore
	handler   http.Handler
	// writing keeps the files and the registry's memory in one order.
	writing sync.Mutex
}

// OpenRegistry opens the registry that is kept in a folder, and makes it when need be. Only one process may have it
// open. With a registry comes an error when some images could not be taken up again: the others can be used.
func OpenRegistry(dir string) (*Registry, error) {
	blobs, err := newBlobStore(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, err
	}
	r := &Registry{blobs: blobs, manifests: manifestStore{dir: filepath.Join(dir, "manifests")}}
	r.handler = registry.New(
		registry.WithBlobHandler(blobs),
		registry.Logger(log.New(io.Discard, "", 0)),
	)
	stored, err := r.manifests.all()
	failures := []error{err}
	for _, m := range stored {
		failures = append(failures, m.replay(r.handler))
	}
	failures = append(failures, r.blobs.sweep(stored))
	return r, errors.Join(failures...)
}

// sweep removes the blobs that no manifest names: what is left of images that were replaced, or never became whole.
func (s *blobStore) sweep(stored []storedManifest) error {
	used := map[string]bool{}
	for _, m := range stored {
		for _, digest := range m.blobs() {
			used[digest] = true
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "sha256"))
	if err != nil {
		return fmt.Errorf("looking for blobs that nobody uses: %w", err)
	}
	for _, entry := range entries {
		if used[entry.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, "sha256", entry.Name())); err != nil {
			return fmt.Errorf("removing a blob that nobody uses: %w", err)
		}
	}
	return nil
}

// ServeHTTP answers registry requests. It asks for no certificate itself: that is for the listener to do.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	// containerd says with ns which registry it would have asked for this repository.
	if ns := req.URL.Query().Get("ns"); ns != "" {
		if rest, found := strings.CutPrefix(req.URL.Path, "/v2/"); found && rest != "" {
			req.URL.Path = "/v2/" + mirrorPath(ns) + "/" + rest
			req.URL.RawPath = ""
		}
	}
	if repository, id, ok := uploadOf(req.URL.Path); ok {
		r.blobs.ServeUpload(w, req, repository, id)
		return
	}
	if repository, reference, ok := manifestOf(req.URL.Path); ok && req.Method != http.MethodGet && req.Method != http.MethodHead {
		r.changeManifest(w, req, repository, reference)
		return
	}
	r.handler.ServeHTTP(w, req)
}

// manifestOf splits the path of a manifest: /v2/<repository>/manifests/<reference>.
func manifestOf(path string) (repository, reference string, ok bool) {
	rest, found := strings.CutPrefix(path, "/v2/")
	i := strings.LastIndex(rest, "/manifests/")
	if !found || i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+len("/manifests/"):], true
}

// statusWriter sees how a request ended.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// changeManifest lets the registry judge a new manifest first and then keeps it. A client that is told "created" finds
// the image after a crash too, so the file is written before the answer leaves.
func (r *Registry) changeManifest(w http.ResponseWriter, req *http.Request, repository, reference string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifestBytes))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", fmt.Errorf("reading the manifest: %w", err))
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.writing.Lock()
	defer r.writing.Unlock()
	switch req.Method {
	case http.MethodPut:
		err = r.manifests.put(storedManifest{Repository: repository, Reference: reference, MediaType: req.Header.Get("Content-Type"), Manifest: body})
	case http.MethodDelete:
		err = r.manifests.remove(repository, reference)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err)
		return
	}
	seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	r.handler.ServeHTTP(seen, req)
	if req.Method == http.MethodPut && seen.status >= http.StatusBadRequest {
		_ = r.manifests.remove(repository, reference) // An index whose members are missing: replay would refuse it too.
	}
}

// Server serves a registry on one or more addresses.
type Server struct {
	http      *http.Server
	addresses []string
	done      chan struct{}
	// busy is held for reading by each request.
	busy sync.RWMutex
}

// Serve listens on the addresses (host:port; port 0 picks one) and serves until Close. tlsConfig must ask for and
// verify client certificates: see ServerTLS. When one address can't be had, none is kept.
func (r *Registry) Serve(addresses []string, tlsConfig *tls.Config) (*Server, error) {
	if tlsConfig == nil || tlsConfig.ClientAuth != tls.RequireAndVerifyClientCert {
		return nil, errors.New("the image registry decides what runs in containers: it is served with client certificates only")
	}
	s := &Server{done: make(chan struct{})}
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			s.busy.RLock()
			defer s.busy.RUnlock()
			r.ServeHTTP(w, req)
		}),
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		// HTTP/1.1 alone: HTTP/2 costs memory, and large blobs gain nothing.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	var listeners []net.Listener
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			if errors.Is(err, syscall.EADDRINUSE) {
				return nil, fmt.Errorf("the image registry's address %s is taken by another program: choose another port with --registry-port, or end that program: %w", address, err)
			}
			return nil, fmt.Errorf("opening the image registry's address %s: %w", address, err)
		}
		listeners = append(listeners, listener)
		s.addresses = append(s.addresses, listener.Addr().String())
	}
	var running sync.WaitGroup
	for _, listener := range listeners {
		running.Go(func() { _ = s.http.ServeTLS(listener, "", "") })
	}
	go func() {
		running.Wait()
		close(s.done)
	}()
	return s, nil
}

// Addresses are where it listens, in the order given, with real ports.
func (s *Server) Addresses() []string { return s.addresses }

// Close stops the server. It lets requests end for as long as the context allows; connections without a request are closed at
// once, for which http.Server's own Shutdown would wait seconds.
func (s *Server) Close(ctx context.Context) error {
	idle := make(chan struct{})
	go func() {
		s.busy.Lock() // Later requests wait here until their connection is closed.
		close(idle)
	}()
	select {
	case <-idle:
		defer s.busy.Unlock()
	case <-ctx.Done():
	}
	if err := s.http.Close(); err != nil {
		return fmt.Errorf("ending the image registry: %w", err)
	}
	<-s.done
	return nil
}
