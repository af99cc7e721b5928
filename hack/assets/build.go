// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stale are the assets that have to be built.
func (s store) stale(assets []asset) ([]asset, error) {
	var stale []asset
	for _, a := range assets {
		key, err := keyOf(a)
		if err != nil {
			return nil, err
		}
		fresh, err := s.fresh(a.name, key)
		if err != nil {
			return nil, err
		}
		if !fresh {
			stale = append(stale, a)
		}
	}
	return stale, nil
}

// buildAll builds one asset after the other: most of them share packages, which are
// compiled for the first and then found in Go's cache. A single build already uses every core.
func (s store) buildAll(ctx context.Context, w io.Writer, stale []asset, of int) error {
	if len(stale) == 0 {
		fmt.Fprintf(w, "Up to date in %s: %d of %d assets.\n", s.dir, of, of)
		return nil
	}
	fmt.Fprintf(w, "Building into %s: %d of %d assets. The first time on a machine takes minutes.\n", s.dir, len(stale), of)
	begin := time.Now()
	for i, a := range stale {
		version, err := a.recipe.version()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "[%2d/%d] %-24s %-9s ", i+1, len(stale), a.name, version)
		start := time.Now()
		if err := s.build(ctx, a); err != nil {
			fmt.Fprintln(w, "failed")
			return err
		}
		info, err := os.Stat(s.program(a.name))
		if err != nil {
			return fmt.Errorf("looking at %s: %w", a.name, err)
		}
		fmt.Fprintf(w, "%7s  %9s\n", time.Since(start).Round(100*time.Millisecond), size(info))
	}
	fmt.Fprintf(w, "Built %d of them in %s.\n", len(stale), time.Since(begin).Round(time.Second))
	return nil
}

// build makes one asset beside its place and moves it there when it is whole.
func (s store) build(ctx context.Context, a asset) error {
	key, err := keyOf(a)
	if err != nil {
		return err
	}
	made := s.scratch(a.name)
	defer os.Remove(made) // Gone already when all went well.
	cmd, err := a.recipe.command(ctx, made)
	if err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped while building %s; what was built before stays", a.name)
		}
		return fmt.Errorf("%s was not built: %w; its last words:\n%s\nThe command was: %s", a.name, err, lastLines(said.String(), 30), cmd)
	}
	return s.put(a.name, key, made)
}

// lock keeps two runs from building into one folder, and returns the way to let go.
func (s store) lock(w io.Writer) (func(), error) {
	if err := os.MkdirAll(filepath.Join(s.dir, ".stamps"), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of assets: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(s.dir, ".stamps", ".lock"), os.O_CREATE|os.O_RDWR, fs.FileMode(0o644))
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the folder of assets: %w", err)
	}
	flags := syscall.LOCK_EX
	if err := syscall.Flock(int(file.Fd()), flags|syscall.LOCK_NB); err != nil {
		fmt.Fprintf(w, "Another run builds into %s: waiting for it to end.\n", s.dir)
		if err := syscall.Flock(int(file.Fd()), flags); err != nil {
			file.Close()
			return nil, fmt.Errorf("locking the folder of assets: %w", err)
		}
	}
	// Closing the file gives up the lock.
	return func() { file.Close() }, nil
}

func size(info fs.FileInfo) string {
	if info.Size() < 1e6 {
		return fmt.Sprintf("%.1f kB", float64(info.Size())/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}

// lastLines cuts a long report down to its end, where compilers say what went wrong.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
