// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

var (
	overlayDir = flag.String("overlay", "hack/schema/overlay", "the folder of the overlay")
	crdDir     = flag.String("crds", "config/crd/bases", "the folder that the CRDs are written to")
	policyDir  = flag.String("policies", "config/policy", "the folder that the generated policies are written to")
	pagesDir   = flag.String("pages", "docs/spec", "the folder of the kinds' pages")
	rolesDir   = flag.String("roles", "config/rbac", "the folder that the generated roles are written to")
)

func main() {
	check := flag.Bool("check", false, "write nothing and fail when a file isn't what would be written")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	overlays, err := loadOverlays(*overlayDir)
	if err != nil {
		return err
	}
	api, err := generate(overlays, "./api/...")
	if err != nil {
		return err
	}
	roles, err := generateRoles("./controllers/...", "./internal/nodeserver/...", "./internal/subresources/...", "./internal/setup/...")
	if err != nil {
		return err
	}
	specs, err := pages(api.definitions, *pagesDir)
	if err != nil {
		return err
	}
	put := write
	if check {
		put = compare
	}
	return errors.Join(
		put(api.crds, *crdDir, "*.yaml"),
		put(api.policies, *policyDir, "pods.yaml"),
		put(roles, *rolesDir, "*_role.yaml"),
		put(specs, *pagesDir, "*.md"),
	)
}

// write makes the given files the only ones of the folder that match the pattern.
func write(files map[string][]byte, dir, pattern string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the output folder: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("writing a generated file: %w", err)
		}
	}
	existing, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return fmt.Errorf("listing the output folder: %w", err)
	}
	for _, path := range existing {
		if _, wanted := files[filepath.Base(path)]; wanted || writtenByHand(path) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing a file that is no more: %w", err)
		}
	}
	return nil
}

// writtenByHand tells a page without a generated part, which is nobody's to remove.
func writtenByHand(path string) bool {
	if filepath.Ext(path) != ".md" {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && !bytes.Contains(text, []byte(pageBegin))
}

// compare names every file that is missing, superfluous or different.
func compare(files map[string][]byte, dir, pattern string) error {
	var stale []string
	for name, content := range files {
		old, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(old, content) {
			stale = append(stale, name)
		}
	}
	existing, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return fmt.Errorf("listing the output folder: %w", err)
	}
	for _, path := range existing {
		if _, wanted := files[filepath.Base(path)]; !wanted && !writtenByHand(path) {
			stale = append(stale, filepath.Base(path))
		}
	}
	if len(stale) == 0 {
		return nil
	}
	sort.Strings(stale)
	return fmt.Errorf("%s: not what the types and the overlay say: %s; run `go run ./hack/schema`", dir, strings.Join(stale, ", "))
}
