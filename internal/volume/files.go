// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	dataLink    = "..data"
	dataLinkNew = "..data_tmp"
)

// mountFiles writes the files so that a reader sees either all the old or all the new ones: they lie in a folder of their own, to
// which ..data points, and a rename swaps that link; upstream's AtomicWriter.
//
//	NAME/config.yaml -> ..data/config.yaml
//	NAME/..data      -> ..2026_11_21_12_00_00.123
func mountFiles(target string, files *Files, fsGroup *int64) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	if files.Memory {
		if err := memoryBacked(target); err != nil {
			return err
		}
	}
	old, err := os.Readlink(filepath.Join(target, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the link to the data: %w", err)
	}
	if old != "" && sameFiles(filepath.Join(target, old), files.Data) {
		return nil
	}
	fresh, err := os.MkdirTemp(target, "..data_")
	if err != nil {
		return fmt.Errorf("making a folder for the data: %w", err)
	}
	if err := writeFiles(fresh, files.Data, fsGroup); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := swap(target, filepath.Base(fresh)); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := linkFiles(target, files.Data); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(target, old))
}

// memoryBacked puts a tmpfs over the folder, so that secrets never reach the disk. Without the right to mount they
// lie in the pod's folder, which only root may enter.
func memoryBacked(target string) error {
	mounted, err := isMount(target)
	if err != nil || mounted {
		return err
	}
	err = unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	return nil
}

func sameFiles(dir string, data map[string]File) bool {
	count := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		count++
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		now, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if want, ok := data[name]; !ok || !bytes.Equal(want.Data, now) {
			return fs.SkipAll
		}
		count--
		return nil
	})
	if err != nil || count != 0 {
		return false
	}
	for name := range data {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

func writeFiles(dir string, data map[string]File, fsGroup *int64) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("opening the data's folder to readers: %w", err)
	}
	for name, file := range data {
		if !filepath.IsLocal(name) || strings.HasPrefix(name, "..") {
			return fmt.Errorf("the path %q leaves the volume: use a relative path without \"..\"", name)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("making the folder of %s: %w", name, err)
		}
		if err := os.WriteFile(path, file.Data, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		mode := file.Mode
		owner, group := -1, -1
		if file.Owner != nil {
			owner = int(*file.Owner)
		}
		if fsGroup != nil {
			group, mode = int(*fsGroup), mode|0o440
		}
		if owner >= 0 || group >= 0 {
			if err := os.Chown(path, owner, group); err != nil {
				return fmt.Errorf("giving %s to its owner: %w", name, err)
			}
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("setting the mode of %s: %w", name, err)
		}
	}
	return nil
}

func swap(target, fresh string) error {
	link := filepath.Join(target, dataLinkNew)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a left-over link: %w", err)
	}
	if err := os.Symlink(fresh, link); err != nil {
		return fmt.Errorf("linking the data: %w", err)
	}
	if err := os.Rename(link, filepath.Join(target, dataLink)); err != nil {
		return fmt.Errorf("swapping the data: %w", err)
	}
	return nil
}

// linkFiles makes the links that a reader sees, one for each first part of a path, and removes those of files that are gone.
func linkFiles(target string, data map[string]File) error {
	wanted := map[string]bool{}
	for name := range data {
		first, _, _ := strings.Cut(name, "/")
		wanted[first] = true
	}
	for name := range wanted {
		err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(target, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linking %s: %w", name, err)
		}
	}
	entries, err := os.ReadDir(target)
	if err != nil {
		return fmt.Errorf("listing the volume: %w", err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 || e.Name() == dataLink || wanted[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(target, e.Name())); err != nil {
			return fmt.Errorf("removing the link of %s: %w", e.Name(), err)
		}
	}
	return nil
}
