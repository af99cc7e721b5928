// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A tool is something of the system that a build or an asset calls.
type tool struct {
	// name is how people call it.
	name string
	// debian is the package that brings it.
	debian  string
	present func() bool
}

var (
	gcc           = tool{"gcc", "gcc", onPath("gcc")}
	staticLibc    = tool{"the static C library", "libc6-dev", linkable("libc.a")}
	kernelHeaders = tool{"the kernel's headers", "linux-libc-dev", includable("asm/unistd.h")}
	pkgConfig     = tool{"pkg-config", "pkg-config", onPath("pkg-config")}
	seccomp       = tool{"the static seccomp library", "libseccomp-dev", linkable("libseccomp.a")}
	nft           = tool{"nft", "nftables", onPath("nft")}
	ip            = tool{"ip", "iproute2", onPath("ip")}
)

// onPath looks for a program also where the PATH of a plain user doesn't lead.
func onPath(program string) func() bool {
	return func() bool {
		if _, err := exec.LookPath(program); err == nil {
			return true
		}
		for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
			if isProgram(filepath.Join(dir, program)) {
				return true
			}
		}
		return false
	}
}

// linkable asks gcc whether it finds a library: it answers with a path if it
// does, and with the bare name if it doesn't.
func linkable(library string) func() bool {
	return func() bool {
		answer, err := exec.Command("gcc", "-print-file-name="+library).Output()
		return err == nil && filepath.IsAbs(strings.TrimSpace(string(answer)))
	}
}

// includable asks gcc whether it finds a header.
func includable(header string) func() bool {
	return func() bool {
		cmd := exec.Command("gcc", "-E", "-xc", "-")
		cmd.Stdin = strings.NewReader("#include <" + header + ">\n")
		return cmd.Run() == nil
	}
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// missing are those of the tools that aren't there, each once.
func missing(tools []tool) []tool {
	var absent []tool
	for _, t := range tools {
		known := slices.ContainsFunc(absent, func(other tool) bool { return other.name == t.name })
		if !known && !t.present() {
			absent = append(absent, t)
		}
	}
	return absent
}

// errNoInstall says that packages can't be installed by us.
var errNoInstall = errors.New("packages can be installed by root on a system with apt-get only")

// install brings the tools through apt-get, and returns what is still missing
// afterwards together with the reason.
func install(ctx context.Context, tools []tool, say func(string)) ([]tool, error) {
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return tools, errNoInstall
	}
	packages := packagesOf(tools)
	say("installing " + strings.Join(packages, " ") + " with apt-get")
	// A list that can't be refreshed is no reason to give up: packages may be known already.
	_, updateErr := apt(ctx, "update")
	report, err := apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...)...)
	if err != nil {
		return missing(tools), errors.Join(fmt.Errorf("apt-get install: %w\n%s", err, report), updateErr)
	}
	if still := missing(tools); len(still) > 0 {
		return still, errors.New("apt-get installed their packages, but they aren't found")
	}
	return nil, nil
}

// apt runs apt-get without questions, waiting a while for another one to finish.
func apt(ctx context.Context, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-o", "DPkg::Lock::Timeout=120"}, arguments...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	report, err := cmd.CombinedOutput()
	return string(report), err
}

func packagesOf(tools []tool) []string {
	var packages []string
	for _, t := range tools {
		packages = append(packages, t.debian)
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// howToInstall is the command that a person can type.
func howToInstall(tools []tool) string {
	return "sudo apt-get install " + strings.Join(packagesOf(tools), " ")
}

// namesOf lists tools in a sentence.
func namesOf(tools []tool) string {
	names := make([]string, 0, len(tools))
	for _, t := range tools {
		names = append(names, t.name)
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
	return strings.Join(names, "")
}
