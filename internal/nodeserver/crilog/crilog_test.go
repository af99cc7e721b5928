// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package crilog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const sample = `2026-01-02T03:04:05.000000001Z stdout F one
2026-01-02T03:04:06.1Z stderr F two
2026-01-02T03:04:07Z stdout P thr
2026-01-02T03:04:08Z stderr F four
2026-01-02T03:04:09Z stdout F ee
nonsense
2026-01-02T03:04:10Z stdout F 
2026-01-02T03:04:11Z stdout F last`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	path := write(t, sample)
	at := func(text string) time.Time {
		out, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct {
		name           string
		options        Options
		stdout, stderr string
	}{
		{"all", Options{Tail: -1, Limit: -1}, "one\nthree\n\nlast\n", "two\nfour\n"},
		{"tail", Options{Tail: 2, Limit: -1}, "\nlast\n", ""},
		{"tail of nothing", Options{Tail: 0, Limit: -1}, "", ""},
		{"tail of more than there is", Options{Tail: 100, Limit: -1}, "one\nthree\n\nlast\n", "two\nfour\n"},
		{"since", Options{Tail: -1, Limit: -1, Since: at("2026-01-02T03:04:08Z")}, "ee\n\nlast\n", "four\n"},
		{"limit", Options{Tail: -1, Limit: 6}, "one\n", "tw"},
		{"timestamps", Options{Tail: -1, Limit: -1, Timestamps: true},
			"2026-01-02T03:04:05.000000001Z one\n2026-01-02T03:04:07.000000000Z three\n2026-01-02T03:04:10.000000000Z \n2026-01-02T03:04:11.000000000Z last\n",
			"2026-01-02T03:04:06.100000000Z two\n2026-01-02T03:04:08.000000000Z four\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			c.options.Stdout, c.options.Stderr = &stdout, &stderr
			if err := Read(t.Context(), path, c.options); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{c.stdout, c.stderr}, []string{stdout.String(), stderr.String()}); diff != "" {
				t.Error(diff)
			}
		})
	}
	if err := Read(t.Context(), path+"x", Options{}); err == nil {
		t.Error("a missing log was read")
	}
}

// TestFollow rotates the log twice while it is followed, with a line written to the old file after each renaming, as a
// runtime does until it is told to reopen.
func TestFollow(t *testing.T) {
	path := write(t, "")
	var running atomic.Bool
	running.Store(true)
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := Read(t.Context(), path, Options{
			Follow: true, Tail: -1, Limit: -1, Stdout: writer,
			Running: func(context.Context) (bool, error) { return running.Load(), nil },
		})
		_ = writer.Close()
		ended <- err
	}()
	add := func(to *os.File, text string) {
		t.Helper()
		if _, err := to.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	open := func() *os.File {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	file := open()
	for i := range 2 {
		// A line comes in two pieces.
		add(file, "2026-01-02T03:04:05Z stdout F o")
		add(file, fmt.Sprintf("ne %d\n", i))
		expect(fmt.Sprintf("one %d\n", i))
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
		add(file, fmt.Sprintf("2026-01-02T03:04:05Z stdout F late %d\n", i))
		expect(fmt.Sprintf("late %d\n", i))
		_ = file.Close()
		file = open()
	}
	add(file, "2026-01-02T03:04:05Z stdout F end")
	running.Store(false)
	expect("end\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = file.Close()
}

// TestRotationLosesNothing writes to the old file when the new one is there already, as a runtime may that is about to change.
func TestRotationLosesNothing(t *testing.T) {
	path := write(t, "")
	var out bytes.Buffer
	r := &reader{Options: Options{Stdout: &out}, path: path, left: -1}
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	open := func() *os.File {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	look := func(want string) {
		t.Helper()
		out.Reset()
		if err := r.look(t.Context(), false); err != nil || out.String() != want {
			t.Fatalf("got %q, %v, want %q", out.String(), err, want)
		}
	}
	say := func(to *os.File, text string) {
		t.Helper()
		if _, err := to.WriteString("2026-01-02T03:04:05Z stdout F " + text + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	old := open()
	say(old, "one")
	look("one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	made := open()
	say(old, "two")
	look("two\n") // From now on it reads the new file.
	say(old, "three")
	look("three\n")
	say(old, "four")
	say(made, "five")
	look("four\nfive\n")
	say(made, "six")
	look("six\n")
	if r.before != nil {
		t.Error("the old file is still open")
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, write(t, sample), Options{Follow: true, Tail: -1, Limit: -1}); err != nil {
		t.Error(err)
	}
}

// TestTailOffset compares with the plain way, over files of all sorts.
func TestTailOffset(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,20}`), 0, 30).Draw(t, "lines")
		long := rapid.IntRange(0, 3).Draw(t, "long")
		for i := range min(long, len(lines)) {
			lines[i] += strings.Repeat("x", 40_000)
		}
		text := strings.Join(lines, "\n")
		if len(lines) > 0 && rapid.Bool().Draw(t, "ended") {
			text += "\n"
		}
		n := rapid.IntRange(0, 40).Draw(t, "n")
		path := filepath.Join(dir, "log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		got, err := tailOffset(file, int64(n))
		if err != nil {
			t.Fatal(err)
		}
		whole := strings.SplitAfter(text, "\n")
		if whole[len(whole)-1] == "" {
			whole = whole[:len(whole)-1]
		}
		if want := strings.Join(whole[max(0, len(whole)-n):], ""); text[got:] != want {
			t.Fatalf("the last %d lines are %d bytes, want %d", n, len(text)-int(got), len(want))
		}
	})
}
