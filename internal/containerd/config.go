// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// DefaultSandboxImage is the image of the process that holds a pod's namespaces. It is built from source here and
// pushed to the registry on localhost, so that no pod needs a registry outside.
const DefaultSandboxImage = "pinnace.dev/pause:1"

// maxSocketPath is what the kernel allows for a unix socket's path, without the closing zero.
const maxSocketPath = 107

// maxShimSocketDir is the longest folder that containerd allows for the sockets of its shims.
const maxShimSocketDir = 42

// Config describes the containerd of one node. Every path is absolute. Several may run on one machine, each with
// folders of its own.
type Config struct {
	// Root keeps images, snapshots and metadata; it survives a reboot.
	Root string
	// State keeps sockets, bundles and network namespaces; it belongs on a tmpfs, so that a reboot empties it.
	State string
	// ConfigFile is where config.toml is written.
	ConfigFile string
	// LogFile is where the supervisor should send the log; it is no part of config.toml.
	LogFile string
	// Program, Shim and Runc are the binaries. All must be of matching versions, so no search in PATH is made.
	Program, Shim, Runc string
	// CNIConfDir holds the node's one conflist; it may be empty at first: the node's network isn't ready until then.
	CNIConfDir string
	// CNIBinDirs hold the plugins.
	CNIBinDirs []string
	// RegistryConfigDir holds hosts.toml files (see image.WriteHosts). Empty means: registries as they come.
	RegistryConfigDir string
	// SandboxImage defaults to DefaultSandboxImage.
	SandboxImage string
	// Snapshotter defaults to "overlayfs".
	Snapshotter string
	// RestrictOOMScoreAdj keeps containerd from lowering a process' OOM score below its own. Without CAP_SYS_RESOURCE
	// nothing starts otherwise; see MayRaiseLimits.
	RestrictOOMScoreAdj bool
	// LogLevel defaults to "warn".
	LogLevel string
}

// runDir holds the states of all nodes.
const runDir = "/run/pinnace"

// ForNode returns the usual configuration of a node's containerd. nodeDir is the node's folder in the data folder, and
// assets the folder with containerd, its shim, runc and cni/. What doesn't survive a reboot lies below /run/pinnace in
// a folder whose name depends on nodeDir alone, so that nodes and data folders never meet.
func ForNode(nodeDir, assets string) Config {
	sum := sha256.Sum256([]byte(nodeDir))
	dir := filepath.Join(nodeDir, "containerd")
	return Config{
		Root:                filepath.Join(dir, "root"),
		State:               filepath.Join(runDir, hex.EncodeToString(sum[:6])),
		ConfigFile:          filepath.Join(dir, "config.toml"),
		LogFile:             filepath.Join(dir, "containerd.log"),
		Program:             filepath.Join(assets, "containerd"),
		Shim:                filepath.Join(assets, "containerd-shim-runc-v2"),
		Runc:                filepath.Join(assets, "runc"),
		CNIConfDir:          filepath.Join(dir, "net.d"),
		CNIBinDirs:          []string{filepath.Join(assets, "cni")},
		RegistryConfigDir:   filepath.Join(dir, "certs.d"),
		RestrictOOMScoreAdj: !MayRaiseLimits(),
	}
}

// Socket is where containerd serves CRI.
func (c Config) Socket() string { return filepath.Join(c.State, "containerd.sock") }

// Endpoint is Socket as a CRI endpoint.
func (c Config) Endpoint() string { return "unix://" + c.Socket() }

// RuncRoot is where runc keeps the state of this node's containers.
func (c Config) RuncRoot() string { return filepath.Join(c.State, "runc") }

// RemoveState removes what a containerd that has ended leaves in State. Where something is still mounted below it, containers
// may be running, and everything is left as it is.
func (c Config) RemoveState() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("listing the mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], c.State+"/") {
			return nil
		}
	}
	if err := os.RemoveAll(c.State); err != nil {
		return fmt.Errorf("removing containerd's state: %w", err)
	}
	return nil
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.SandboxImage == "" {
		c.SandboxImage = DefaultSandboxImage
	}
	if c.Snapshotter == "" {
		c.Snapshotter = "overlayfs"
	}
	if c.LogLevel == "" {
		c.LogLevel = "warn"
	}
	return c
}

// Validate says in one sentence what can't work.
func (c Config) Validate() error {
	for _, p := range []struct{ what, path string }{
		{"root folder", c.Root}, {"state folder", c.State}, {"configuration file", c.ConfigFile},
		{"program", c.Program}, {"shim", c.Shim}, {"runc", c.Runc}, {"CNI configuration folder", c.CNIConfDir},
	} {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("containerd's %s must be an absolute path, but it is %q", p.what, p.path)
		}
	}
	for _, p := range append([]string{c.Root, c.State, c.Shim, c.Runc, c.CNIConfDir, c.RegistryConfigDir, c.SandboxImage}, c.CNIBinDirs...) {
		if strings.ContainsFunc(p, unicode.IsControl) {
			return fmt.Errorf("the path %q contains a control character, which containerd's configuration can't hold: choose another folder", p)
		}
	}
	if len(c.Socket()+".ttrpc") > maxSocketPath {
		return fmt.Errorf("the socket's path %s is longer than the kernel allows (%d bytes): choose a shorter state folder", c.Socket(), maxSocketPath)
	}
	return nil
}

// CheckPrograms says which of the binaries is missing.
func (c Config) CheckPrograms() error {
	for _, program := range []string{c.Program, c.Shim, c.Runc} {
		info, err := os.Stat(program)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the program %s is missing: run `make assets`, or point --assets-dir to a folder that has it", program)
		}
		if err != nil {
			return fmt.Errorf("looking for %s: %w", program, err)
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s can't be executed: build it anew with `make assets`", program)
		}
	}
	return nil
}

// Write makes the folders and writes config.toml. It may be called again at any time; containerd reads the file when
// it starts.
func (c Config) Write() error {
	if err := c.Validate(); err != nil {
		return err
	}
	// Root holds the file systems of all containers, which may be setuid: nobody but root looks in. State holds sockets.
	// The others hold no secrets; the folder above must be passable for users of containers.
	folders := []struct {
		path string
		mode os.FileMode
	}{
		{filepath.Dir(c.ConfigFile), 0o711}, {c.CNIConfDir, 0o755}, {c.Root, 0o711}, {c.State, 0o711},
	}
	if c.RegistryConfigDir != "" {
		folders = append(folders, struct {
			path string
			mode os.FileMode
		}{c.RegistryConfigDir, 0o755})
	}
	for _, f := range folders {
		if err := os.MkdirAll(f.path, f.mode); err != nil {
			return fmt.Errorf("making containerd's folders: %w", err)
		}
	}
	// Others may have made State, or the folder above it, for root alone. Root of a user namespace is none of the host's users there.
	passed := []string{c.State}
	if above := filepath.Dir(c.State); above == runDir {
		passed = append(passed, above)
	}
	for _, dir := range passed {
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("letting users of containers pass through %s: %w", dir, err)
		}
	}
	next := c.ConfigFile + ".new"
	if err := os.WriteFile(next, c.Render(), 0o600); err != nil {
		return fmt.Errorf("writing containerd's configuration: %w", err)
	}
	if err := os.Rename(next, c.ConfigFile); err != nil {
		return fmt.Errorf("writing containerd's configuration: %w", err)
	}
	return nil
}
