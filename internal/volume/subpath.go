// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// SubPath makes a part of a volume ready to be mounted into a container: it is opened without leaving the volume, even over
// symbolic links that a container has put there, and bind-mounted, so that it can't be swapped before the runtime
// mounts it. A path that isn't there is made as a folder. index tells apart the mounts of one container.
func (m *Manager) SubPath(pod types.UID, container string, index int, volume, sub string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leaves the volume: use a relative path without \"..\"", sub)
	}
	info, err := os.Stat(volume)
	if err != nil {
		return "", fmt.Errorf("opening the volume of subPath %q: %w", sub, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("subPath %q: the volume is a file", sub)
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		return "", fmt.Errorf("opening the volume of subPath %q: %w", sub, err)
	}
	defer func() { _ = root.Close() }() // It was only read.
	file, err := root.Open(sub)
	if errors.Is(err, fs.ErrNotExist) {
		if err = root.MkdirAll(sub, 0o755); err == nil {
			file, err = root.Open(sub)
		}
	}
	if err != nil {
		return "", fmt.Errorf("opening subPath %q without leaving the volume: %w", sub, err)
	}
	defer func() { _ = file.Close() }() // It was only read.
	opened, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("looking at subPath %q: %w", sub, err)
	}
	target := filepath.Join(m.PodDir(pod), "subpaths", container, strconv.Itoa(index))
	if err := bindTarget(target, opened.IsDir()); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mounting subPath %q: %w", sub, err)
	}
	return target, nil
}

// bindTarget makes the file or folder that is mounted over, without what an earlier start has mounted there.
func bindTarget(target string, dir bool) error {
	if _, err := os.Lstat(target); err == nil {
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting an earlier subPath: %w", err)
		}
		if err := os.Remove(target); err != nil {
			return fmt.Errorf("removing an earlier subPath: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return fmt.Errorf("making the folder of the subPaths: %w", err)
	}
	if dir {
		return os.Mkdir(target, 0o750)
	}
	return os.WriteFile(target, nil, 0o640)
}

// ReadTail returns the last bytes of a file of the pod, or nothing when there is no such file.
func (m *Manager) ReadTail(pod types.UID, name string, most int64) string {
	return ReadTail(filepath.Join(m.PodDir(pod), name), most)
}

// ReadTail returns the last bytes of a file, or nothing when it can't be read: it is for messages, not for data.
func ReadTail(path string, most int64) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }() // It was only read.
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	size := min(info.Size(), most)
	buffer := make([]byte, size)
	n, err := file.ReadAt(buffer, info.Size()-size)
	if err != nil && n == 0 {
		return ""
	}
	return strings.ToValidUTF8(string(buffer[:n]), "?")
}
