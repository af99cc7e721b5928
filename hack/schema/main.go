// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

func main() {
	overlayDir := flag.String("overlay", "hack/schema/overlay", "the folder of the overlay files, one a group")
	out := flag.String("out", "config/crd/bases", "the folder that the CRDs are written to")
	check := flag.Bool("check", false, "write nothing and fail when a file isn't what would be written")
	flag.Parse()
	if err := run(*overlayDir, *out, *check); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

func run(overlayDir, out string, check bool) error {
	overlays, err := loadOverlays(overlayDir)
	if err != nil {
		return err
	}
	files, err := generate(overlays, "./api/...")
	if err != nil {
		return err
	}
	if check {
		return compare(files, out)
	}
	return write(files, out)
}

// write makes the folder hold exactly the given files.
func write(files map[string][]byte, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the output folder: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("writing a CRD: %w", err)
		}
	}
	existing, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return fmt.Errorf("listing the output folder: %w", err)
	}
	for _, path := range existing {
		if _, wanted := files[filepath.Base(path)]; wanted {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing a CRD that is no more: %w", err)
		}
	}
	return nil
}

// compare names every file that is missing, superfluous or different.
func compare(files map[string][]byte, dir string) error {
	var stale []string
	for name, content := range files {
		old, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(old, content) {
			stale = append(stale, name)
		}
	}
	existing, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return fmt.Errorf("listing the output folder: %w", err)
	}
	for _, path := range existing {
		if _, wanted := files[filepath.Base(path)]; !wanted {
			stale = append(stale, filepath.Base(path))
		}
	}
	if len(stale) == 0 {
		return nil
	}
	sort.Strings(stale)
	return fmt.Errorf("%s: not what the types and the overlay say: %s; run `go run ./hack/schema`", dir, strings.Join(stale, ", "))
}
