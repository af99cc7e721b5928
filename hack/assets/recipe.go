// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// A recipe knows how one program is made.
type recipe interface {
	// version is the version that the program will print.
	version() (string, error)
	// inputs writes all that decides how the program turns out. It is read
	// on every run, and so has to be cheap.
	inputs(w io.Writer) error
	// command makes the program at the path out, which is absolute.
	command(ctx context.Context, out string) (*exec.Cmd, error)
	// needs are the system's tools without which command fails.
	needs() []tool
}

// goProgram is a main package of an upstream module, pinned by a module of ours.
type goProgram struct {
	// module is the folder of our module.
	module string
	// upstream is the module that holds the program, and whose version the program has.
	upstream string
	// pkg is the main package's path below upstream; empty means upstream itself.
	pkg string
	// cgo is on for the few programs that need C; all others are static without it.
	cgo  bool
	tags []string
	// ldflags are the linker's flags beside those that every program gets; nil means none.
	ldflags func(version string) string
	tools   []tool
}

func (p goProgram) needs() []tool { return p.tools }

func (p goProgram) version() (string, error) {
	file := filepath.Join(p.module, "go.mod")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the pinned version: %w", err)
	}
	required := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(p.upstream) + `\s+(v\S+)`)
	found := required.FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s requires no version of %s", file, p.upstream)
	}
	return string(found[1]), nil
}

func (p goProgram) inputs(w io.Writer) error {
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(p.module, name))
		if err != nil {
			return fmt.Errorf("reading pinned versions: %w", err)
		}
		fmt.Fprintf(w, "%s %d\n%s", name, len(text), text)
	}
	arguments, err := p.arguments("")
	if err != nil {
		return err
	}
	fmt.Fprintln(w, runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(arguments, " "), p.environment())
	// The variables that change what the compilers make of the same source.
	for _, name := range []string{"GOAMD64", "GOARM64", "GOEXPERIMENT", "CC", "CGO_CFLAGS", "CGO_LDFLAGS"} {
		fmt.Fprintf(w, "%s=%s\n", name, os.Getenv(name))
	}
	return nil
}

func (p goProgram) command(ctx context.Context, out string) (*exec.Cmd, error) {
	arguments, err := p.arguments(out)
	if err != nil {
		return nil, err
	}
	cmd := gently(ctx, "go", arguments...)
	cmd.Dir = p.module
	cmd.Env = append(os.Environ(), p.environment()...)
	return cmd, nil
}

// environment shields the build from settings that the caller made for other
// modules, such as -mod=vendor or a workspace.
func (p goProgram) environment() []string {
	cgo := "CGO_ENABLED=0"
	if p.cgo {
		cgo = "CGO_ENABLED=1"
	}
	return []string{cgo, "GOFLAGS=-mod=readonly", "GOWORK=off"}
}

func (p goProgram) arguments(out string) ([]string, error) {
	version, err := p.version()
	if err != nil {
		return nil, err
	}
	// Without symbol tables the programs are a third smaller.
	ldflags := "-s -w"
	if p.ldflags != nil {
		ldflags += " " + p.ldflags(version)
	}
	return []string{
		"build", "-trimpath", "-buildvcs=false",
		"-tags", strings.Join(p.tags, ","),
		"-ldflags", ldflags,
		"-o", out,
		path.Join(p.upstream, p.pkg),
	}, nil
}

// cProgram is a program of ours in one C file that uses no C library.
type cProgram struct {
	source, release string
}

func (p cProgram) needs() []tool { return []tool{gcc, kernelHeaders} }

func (p cProgram) version() (string, error) { return "v" + p.release, nil }

func (p cProgram) inputs(w io.Writer) error {
	text, err := os.ReadFile(p.source)
	if err != nil {
		return fmt.Errorf("reading a C program: %w", err)
	}
	fmt.Fprintf(w, "%s\n%s\n%s", runtime.GOARCH, strings.Join(p.arguments(""), " "), text)
	return nil
}

func (p cProgram) command(ctx context.Context, out string) (*exec.Cmd, error) {
	return gently(ctx, "gcc", p.arguments(out)...), nil
}

func (p cProgram) arguments(out string) []string {
	return []string{
		"-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror",
		// No library, no start-up code, and nothing that would call into either.
		"-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
		// A fixed address and no tables, so that two pages of memory are enough.
		"-fno-pie", "-no-pie", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-s",
		fmt.Sprintf("-DPAUSE_VERSION=%q", p.release),
		"-o", out, p.source,
	}
}

// gently is a command that gives way to whatever else the machine has to do,
// and that ends when the context does.
func gently(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nice", append([]string{"-n", "10", name}, arguments...)...)
	// An interrupt, for go removes its temporary folder only when it is asked to stop.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd
}
