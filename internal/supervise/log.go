// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// DefaultLogLimit bounds a log file, in bytes. With its predecessor a process
// so takes at most about twice that.
const DefaultLogLimit = 8 << 20

// OpenLog opens a log file for appending, in a folder and with a mode that
// only the owner reads: logs of an API server may tell much. Appending
// matters beyond order: a file that is truncated while the process runs goes
// on at its new end.
func OpenLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the log folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log file: %w", err)
	}
	return f, nil
}

// Tail returns the last n lines of a log file, each bounded in length; none
// when there is no file.
func Tail(path string, n int) []string {
	const window, longest = 32 << 10, 400
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	start := max(0, info.Size()-window)
	data, err := io.ReadAll(io.NewSectionReader(f, start, window))
	if err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if start > 0 && len(lines) > 1 {
		lines = lines[1:] // the first is cut in the middle
	}
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > longest {
			lines[i] = line[:longest] + "…"
		}
	}
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines
}

// rotateLog moves the log of the run before aside, so that each run starts
// with an empty log and the one before can still be read.
func rotateLog(path string) error {
	if path == "" {
		return nil
	}
	err := os.Rename(path, path+".1")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("moving the old log aside: %w", err)
	}
	return nil
}

// truncateLog bounds the log of a running process: the content moves to the
// file's predecessor, and the file starts anew. Lines that the process writes
// between the two steps are lost, as with logrotate's copytruncate.
func truncateLog(path string, limit int64) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("looking at the log: %w", err)
	}
	if info.Size() <= limit {
		return nil
	}
	if err := copyEnd(path, path+".1", limit); err != nil {
		return fmt.Errorf("keeping the end of the log: %w", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return fmt.Errorf("emptying the log: %w", err)
	}
	return nil
}

// copyEnd copies at most the last limit bytes.
func copyEnd(from, to string, limit int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	start := max(0, info.Size()-limit)
	_, err = io.Copy(out, io.NewSectionReader(in, start, limit))
	return errors.Join(err, out.Close())
}
