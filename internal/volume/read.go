// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ReadFile returns a file of a volume, at most that many bytes, without leaving the volume over symbolic links; there is false when it
// doesn't exist.
func ReadFile(volume, path string, most int64) (text string, there bool, err error) {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return "", false, fmt.Errorf("opening the volume: %w", err)
	}
	defer func() { _ = root.Close() }() // It was only read.
	info, err := root.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if !info.Mode().IsRegular() {
		return "", false, fmt.Errorf("%s is no file", path)
	}
	file, err := root.Open(path)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = file.Close() }() // It was only read.
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return "", false, err
	}
	if int64(len(data)) > most {
		return "", false, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return string(data), true, nil
}
