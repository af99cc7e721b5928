// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package crilog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options say what of a log is read. The zero value reads nothing: Tail and Limit are negative for all.
type Options struct {
	// Follow goes on until the context ends or Running says no.
	Follow bool
	// Tail is how many lines from the end are read at first; negative: all.
	Tail int64
	// Limit ends after that many bytes; negative: none.
	Limit int64
	// Since leaves out what was written before.
	Since time.Time
	// Timestamps puts the time before each line.
	Timestamps bool
	// Stdout and Stderr get the streams' text; nil drops it.
	Stdout, Stderr io.Writer
	// Running says, when following, whether the container may still write. It is asked about once a second. Required
	// then.
	Running func(context.Context) (bool, error)
}

// lookEvery is how often a followed log is looked at although nothing told of a change.
const lookEvery = time.Second

// Read copies a log. A limit that is reached and a context that ends while following are
// no errors. Lines that make no sense are left out: a power cut may leave one.
func Read(ctx context.Context, path string, o Options) error {
	r := &reader{Options: o, path: path, left: o.Limit}
	if err := r.open(); err != nil {
		return err
	}
	defer r.close()
	if o.Tail >= 0 {
		from, err := tailOffset(r.now.file, o.Tail)
		if err == nil {
			_, err = r.now.file.Seek(from, io.SeekStart)
		}
		if err != nil {
			return fmt.Errorf("finding the end of the log %s: %w", path, err)
		}
	}
	var err error
	if o.Follow {
		err = r.follow(ctx)
	} else {
		err = r.drain(ctx, true)
	}
	if errors.Is(err, errEnough) || (o.Follow && ctx.Err() != nil) {
		return nil
	}
	return err
}

// errEnough says that the limit is reached.
var errEnough = errors.New("enough was read")

type reader struct {
	Options
	path string
	now  *source
	// before is the file from before a rotation, as long as the runtime may still write to it: it makes the new one first and leaves the
	// old one then, which is seen by what stands in the new one. Nil: there is none.
	before *source
	left   int64
	// inLine says of stdout and stderr that the last text was a part.
	inLine [2]bool
}

// source is one of the files of a log.
type source struct {
	file *os.File
	in   *bufio.Reader
	// rest is a line whose end isn't written yet.
	rest []byte
}

func (r *reader) open() error {
	file, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	r.now = &source{file: file, in: bufio.NewReaderSize(file, 32<<10)}
	return nil
}

func (r *reader) close() {
	for _, s := range []*source{r.now, r.before} {
		if s != nil {
			_ = s.file.Close() // It was only read.
		}
	}
}

// drain copies up to the end of the log. last also takes a line that has no end.
func (r *reader) drain(ctx context.Context, last bool) error {
	if r.before != nil {
		if err := r.copy(ctx, r.before, false); err != nil {
			return err
		}
	}
	return r.copy(ctx, r.now, last)
}

// leave takes what the file from before the rotation has still got, and closes it.
func (r *reader) leave(ctx context.Context) error {
	old := r.before
	if old == nil {
		return nil
	}
	r.before = nil
	err := r.copy(ctx, old, true)
	_ = old.file.Close() // It was only read.
	return err
}

func (r *reader) copy(ctx context.Context, from *source, last bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		part, err := from.in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the log %s: %w", r.path, err)
		}
		if len(part) > 0 && from == r.now {
			if err := r.leave(ctx); err != nil {
				return err
			}
		}
		ended := err != nil
		if from.rest = append(from.rest, part...); ended && !last {
			return nil
		}
		if len(from.rest) > 0 {
			if err := r.write(from.rest); err != nil {
				return err
			}
			from.rest = from.rest[:0]
		}
		if ended {
			return nil
		}
	}
}

// write prints one line of the file.
func (r *reader) write(raw []byte) error {
	l, err := parseLine(raw)
	if err != nil || l.at.Before(r.Since) {
		return nil // A line that makes no sense is left out.
	}
	to, stream := r.Stdout, 0
	if l.stderr {
		to, stream = r.Stderr, 1
	}
	if to == nil {
		return nil
	}
	var out bytes.Buffer
	if r.Timestamps && !r.inLine[stream] {
		out.WriteString(l.at.Format(timeLayout))
		out.WriteByte(' ')
	}
	out.Write(l.text)
	if r.inLine[stream] = l.partial; !l.partial {
		out.WriteByte('\n')
	}
	text := out.Bytes()
	if r.left >= 0 {
		text = text[:min(int64(len(text)), r.left)]
		r.left -= int64(len(text))
	}
	if _, err := to.Write(text); err != nil {
		return fmt.Errorf("sending the log: %w", err)
	}
	if r.left == 0 {
		return errEnough
	}
	return nil
}

func (r *reader) follow(ctx context.Context) error {
	// Where the kernel gives no watches, looking once a second must do.
	var changes chan fsnotify.Event
	if watcher, err := fsnotify.NewWatcher(); err == nil {
		defer func() { _ = watcher.Close() }()
		if watcher.Add(filepath.Dir(r.path)) == nil {
			changes = watcher.Events
			go func() {
				for range watcher.Errors {
					// An overflow only means that the next look comes by the clock.
				}
			}()
		}
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	ending := false
	for {
		if err := r.look(ctx, ending); err != nil {
			return err
		}
		if ending {
			return r.leave(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-changes:
			if event.Name != r.path {
				continue
			}
		case <-ticker.C:
			running, err := r.Running(ctx)
			if err != nil {
				return fmt.Errorf("asking whether the container runs: %w", err)
			}
			// One more round takes what was written before it ended.
			ending = !running
		}
	}
}

// look copies what there is, of the new file too when the log was rotated meanwhile. last also takes a line that has no end.
func (r *reader) look(ctx context.Context, last bool) error {
	for {
		if err := r.drain(ctx, last); err != nil {
			return err
		}
		rotated, err := r.rotated()
		if err != nil || !rotated {
			return err
		}
		// What is written between this look and the runtime's change to the new file is in the old one.
		if err := r.leave(ctx); err != nil {
			return err
		}
		r.before = r.now
		if err := r.open(); err != nil {
			return err
		}
	}
}

// rotated tells whether another file has the path now.
func (r *reader) rotated() (bool, error) {
	mine, err := r.now.file.Stat()
	if err != nil {
		return false, fmt.Errorf("looking at the log: %w", err)
	}
	now, err := os.Stat(r.path)
	if errors.Is(err, os.ErrNotExist) {
		// Between the renaming and the new file there is none for a moment: Running tells the end.
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at the log: %w", err)
	}
	return !os.SameFile(mine, now), nil
}

// tailOffset finds where the last n lines begin.
func tailOffset(file *os.File, n int64) (int64, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return size, err
	}
	const block = 32 << 10
	buffer := make([]byte, block)
	found := int64(0)
	for end := size; end > 0; {
		start := max(0, end-block)
		part := buffer[:end-start]
		if _, err := file.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			// The end of the last line begins none.
			if part[i] != '\n' || start+int64(i) == size-1 {
				continue
			}
			if found++; found == n {
				return start + int64(i) + 1, nil
			}
		}
		end = start
	}
	return 0, nil
}
