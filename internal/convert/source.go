// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// StandardInput is the path that stands for standard input.
const StandardInput = "-"

// extensions are those of the files that are read from folders. A file that is
// named itself may have any.
var extensions = []string{".yaml", ".yml", ".json"}

// Read reads all paths, in their order, before anything is converted. A folder
// stands for its manifests sorted by name, with recursive also for those of the
// folders in it; links to folders are not followed there. Each error is one
// sentence that names the path.
func Read(paths []string, recursive bool, stdin io.Reader) ([]Stream, error) {
	var streams []Stream
	stdinRead := false
	for _, path := range paths {
		if path == StandardInput {
			if stdinRead {
				return nil, errors.New("-f - was given twice, but standard input can be read once: give it once")
			}
			stdinRead = true
			data, err := io.ReadAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("reading standard input: %w", err)
			}
			streams = append(streams, Stream{Name: "standard input", Data: data})
			continue
		}
		files, err := files(path, recursive)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("reading manifests: %w", err)
			}
			streams = append(streams, Stream{Name: file, Data: data})
		}
	}
	return streams, nil
}

// files returns the files that a path stands for.
func files(path string, recursive bool) ([]string, error) {
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		return nil, fmt.Errorf("-f %s is an address, and convert reads files and folders only: run curl -fsSL %s | pinnace convert", path, path)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("-f %s: there is no such file or folder", path)
	case err != nil:
		return nil, fmt.Errorf("reading manifests: %w", err)
	case !info.IsDir():
		return []string{path}, nil
	}
	found, folders, err := folder(path, recursive)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		hint := ""
		if folders && !recursive {
			hint = ": add -R to read the folders in it"
		}
		return nil, fmt.Errorf("-f %s: the folder holds no file that ends in %s%s", path, strings.Join(extensions, ", "), hint)
	}
	return found, nil
}

// folder returns the manifests of a folder, and whether it holds folders.
func folder(path string, recursive bool) (found []string, folders bool, err error) {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, false, fmt.Errorf("reading manifests: %w", err)
	}
	for _, entry := range entries {
		file := filepath.Join(path, entry.Name())
		if entry.IsDir() {
			folders = true
			if recursive {
				inner, _, err := folder(file, recursive)
				if err != nil {
					return nil, false, err
				}
				found = append(found, inner...)
			}
			continue
		}
		if !slices.Contains(extensions, filepath.Ext(file)) {
			continue
		}
		// A link to a folder may lead back to where we came from.
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		found = append(found, file)
	}
	return found, folders, nil
}
