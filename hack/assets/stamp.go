// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A store is the folder into which assets are built, with a stamp beside each
// that says from what it was made.
type store struct {
	dir string
}

// program is where the asset lies.
func (s store) program(name string) string { return filepath.Join(s.dir, name) }

func (s store) stamp(name string) string {
	return filepath.Join(s.dir, ".stamps", strings.ReplaceAll(name, "/", "-"))
}

// fresh tells whether the asset lies there, was made from key, and hasn't been
// exchanged since.
func (s store) fresh(name, key string) (bool, error) {
	stamp, err := os.ReadFile(s.stamp(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading a stamp: %w", err)
	}
	seal, err := s.seal(name, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && string(stamp) == seal, err
}

// put moves the finished program at the path made to its place in one step, so
// that a copy which is running goes on running, and stamps it.
func (s store) put(name, key, made string) error {
	if err := os.Remove(s.stamp(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the old stamp: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.program(name)), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", name, err)
	}
	if err := os.Rename(made, s.program(name)); err != nil {
		return fmt.Errorf("moving %s to its place: %w", name, err)
	}
	seal, err := s.seal(name, key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.stamp(name), []byte(seal), 0o644); err != nil {
		return fmt.Errorf("writing the stamp of %s: %w", name, err)
	}
	return nil
}

// scratch is a path, on the same file system, for a program that is being made.
func (s store) scratch(name string) string { return s.stamp(name) + ".new" }

// seal is what the stamp of an asset says: what it was made from, and what came out.
func (s store) seal(name, key string) (string, error) {
	info, err := os.Stat(s.program(name))
	if err != nil {
		return "", fmt.Errorf("looking at %s: %w", name, err)
	}
	return fmt.Sprintf("made from %s\nsize %d\nmodified %d\n", key, info.Size(), info.ModTime().UnixNano()), nil
}

// keyOf condenses all that decides how an asset turns out. Two programs of one
// module differ by the package that is among the recipe's inputs.
func keyOf(a asset) (string, error) {
	sum := sha256.New()
	if err := a.recipe.inputs(sum); err != nil {
		return "", fmt.Errorf("%s: %w", a.name, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
