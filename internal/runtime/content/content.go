// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// folder is the store's name below containerd's root, where its snapshotters have their folders too.
const folder = "io.containerd.content.v1.content"

// manifestMost is the biggest blob that is looked into for a manifest; registries take none above 4 MiB.
const manifestMost = 4 << 20

// Store is a content store on this machine's disk.
type Store struct{ dir string }

// Find looks for the store beside a snapshotter's folder, which CRI names as the mount point of its images.
func Find(snapshotter string) (Store, bool) {
	if !filepath.IsAbs(snapshotter) {
		return Store{}, false
	}
	s := Store{dir: filepath.Join(filepath.Dir(snapshotter), folder)}
	info, err := os.Stat(s.dir)
	return s, err == nil && info.IsDir()
}

// Progress of the pulls under way, in bytes as they come from the registry. Total is 0 while no manifest has come.
type Progress struct{ Done, Total int64 }

// Progress sums over the pulls that began since then and aren't complete. Which image a manifest is of isn't written down, so
// pulls at the same time can't be told apart. When all that came is complete, it is the newest manifest's.
func (s Store) Progress(since time.Time) (Progress, error) {
	coming, err := s.coming()
	if err != nil {
		return Progress{}, err
	}
	manifests, err := s.manifests(since)
	if err != nil {
		return Progress{}, err
	}
	layers, newest, complete := map[string]int64{}, time.Time{}, Progress{}
	for _, m := range manifests {
		p, missing := Progress{}, false
		for _, l := range m.Layers {
			p.Total += l.Size
			missing = missing || !s.has(l.Digest)
		}
		if missing {
			for _, l := range m.Layers {
				layers[l.Digest] = l.Size
			}
		} else if p.Done = p.Total; m.written.After(newest) {
			newest, complete = m.written, p
		}
	}
	var out Progress
	for digest, size := range layers {
		out.Total += size
		if s.has(digest) {
			out.Done += size
		} else {
			out.Done += min(coming[digest], size)
		}
	}
	switch {
	case len(layers) > 0:
		return out, nil
	case len(coming) == 0:
		return complete, nil
	}
	// The manifest was here from an earlier pull: how much there will be isn't known.
	for _, size := range coming {
		out.Done += size
	}
	return out, nil
}

// manifest is what is needed of an image's manifest.
type manifest struct {
	Config *struct{} `json:"config"`
	Layers []struct {
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	} `json:"layers"`

	written time.Time
}

// manifests finds those that came since then.
func (s Store) manifests(since time.Time) ([]manifest, error) {
	dir := filepath.Join(s.dir, "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing containerd's blobs: %w", err)
	}
	var out []manifest
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.ModTime().Before(since) || info.Size() > manifestMost {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || len(data) == 0 || data[0] != '{' {
			continue
		}
		m := manifest{written: info.ModTime()}
		if json.Unmarshal(data, &m) == nil && m.Config != nil && len(m.Layers) > 0 {
			out = append(out, m)
		}
	}
	return out, nil
}

// coming are the sizes of what is on its way, by digest or, where its name has none, by its folder.
func (s Store) coming() (map[string]int64, error) {
	dir := filepath.Join(s.dir, "ingest")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing what containerd fetches: %w", err)
	}
	out := map[string]int64{}
	for _, e := range entries {
		// What isn't there any more has just come whole.
		info, err := os.Stat(filepath.Join(dir, e.Name(), "data"))
		ref, refErr := os.ReadFile(filepath.Join(dir, e.Name(), "ref"))
		if err != nil || refErr != nil {
			continue
		}
		name := e.Name()
		if i := strings.LastIndex(string(ref), "sha256:"); i >= 0 {
			name = strings.TrimSpace(string(ref[i:]))
		}
		out[name] += info.Size()
	}
	return out, nil
}

func (s Store) has(digest string) bool {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok || strings.ContainsAny(digest, "/.") {
		return false
	}
	_, err := os.Stat(filepath.Join(s.dir, "blobs", algorithm, hex))
	return err == nil
}
