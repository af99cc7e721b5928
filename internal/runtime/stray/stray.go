// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package stray

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is that of CRI within containerd. Others, such as a user's own, are none of ours.
const namespace = "k8s.io"

// Shim is a process that stands between containerd and the containers of one sandbox.
type Shim struct {
	PID int
	// ID of the sandbox, or of the container, that it was started for.
	ID string
	// Age of the process.
	Age time.Duration
	// Folderless: its bundle's folder is gone. containerd makes it before it starts the shim, and finds shims again by it alone.
	Folderless bool
	// Busy: it has processes below it.
	Busy bool
}

// Netns is a file that holds a network namespace, or held one.
type Netns struct {
	Path string
	Made time.Time
	// Used: a process is in it.
	Used bool
}

// Bundle is the folder of a bundle.
type Bundle struct {
	Path string
	// ID of the sandbox or container.
	ID   string
	Made time.Time
	// Dropped: containerd had begun to remove it, and doesn't look at it any more.
	Dropped bool
}

// Found is all that there is, forgotten or not.
type Found struct {
	// Since when the runtime that runs now has served: what is older and unknown to it was made by one that is dead. Zero when this isn't
	// known, and then nothing else is either.
	Since   time.Time
	Shims   []Shim
	Netns   []Netns
	Bundles []Bundle
}

// Finder looks on this machine. It is safe for concurrent use.
type Finder struct {
	// Info is the runtime's verbose status over CRI. Required.
	Info func(ctx context.Context) (map[string]string, error)
	// proc is where processes are; a test's own folder.
	proc string
}

// layout is where a containerd has its things, by its own word.
type layout struct {
	// socket is what its shims are told, state its volatile folder.
	socket, state string
	// netns is the folder of network namespaces where it is the runtime's own, else empty.
	netns string
}

// readLayout reads what containerd says of its configuration. ok is false for a runtime that says nothing of the kind.
func readLayout(info map[string]string) (l layout, ok bool) {
	var config struct {
		StateDir                 string `json:"stateDir"`
		ContainerdEndpoint       string `json:"containerdEndpoint"`
		NetNSMountsUnderStateDir bool   `json:"netnsMountsUnderStateDir"`
	}
	if err := json.Unmarshal([]byte(info["config"]), &config); err != nil || !filepath.IsAbs(config.StateDir) || !filepath.IsAbs(config.ContainerdEndpoint) {
		return layout{}, false
	}
	// CRI is one plugin of containerd and has a folder of its own in containerd's.
	l = layout{socket: config.ContainerdEndpoint, state: filepath.Dir(filepath.Clean(config.StateDir))}
	if config.NetNSMountsUnderStateDir {
		l.netns = filepath.Join(config.StateDir, "netns")
	}
	return l, true
}

// Find lists what there is. It asks the runtime only where it has its things: whoever decides asks it what it knows after this.
func (f *Finder) Find(ctx context.Context) (Found, error) {
	info, err := f.Info(ctx)
	if err != nil {
		return Found{}, fmt.Errorf("asking the runtime where it has its things: %w", err)
	}
	l, ok := readLayout(info)
	if !ok {
		return Found{}, nil
	}
	socket, err := os.Stat(l.socket)
	if errors.Is(err, fs.ErrNotExist) {
		return Found{}, nil // It has another root than this process: nothing here is known to be its own.
	}
	if err != nil {
		return Found{}, fmt.Errorf("looking at the runtime's socket: %w", err)
	}
	found := Found{Since: socket.ModTime()}
	if found.Bundles, err = l.bundles(); err != nil {
		return Found{}, err
	}
	if found.Netns, err = l.namespaces(); err != nil {
		return Found{}, err
	}
	all, err := f.processes()
	if err != nil {
		return Found{}, err
	}
	found.Shims = f.shims(all, l.socket, socket)
	f.markUsed(found.Netns, all)
	return found, nil
}

func (l layout) bundles() ([]Bundle, error) {
	dir := filepath.Join(l.state, "io.containerd.runtime.v2.task", namespace)
	entries, err := readDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the runtime's bundles: %w", err)
	}
	var out []Bundle
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() {
			continue // It went meanwhile.
		}
		id, dropped := strings.CutPrefix(e.Name(), ".")
		out = append(out, Bundle{Path: filepath.Join(dir, e.Name()), ID: id, Made: info.ModTime(), Dropped: dropped})
	}
	return out, nil
}

func (l layout) namespaces() ([]Netns, error) {
	if l.netns == "" {
		return nil, nil
	}
	entries, err := readDir(l.netns)
	if err != nil {
		return nil, fmt.Errorf("listing the runtime's network namespaces: %w", err)
	}
	var out []Netns
	for _, e := range entries {
		path := filepath.Join(l.netns, e.Name())
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			out = append(out, Netns{Path: path, Made: info.ModTime()})
		}
	}
	return out, nil
}

func readDir(dir string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// RemoveNetns lets a network namespace go, with the interfaces in it and their other ends. Idempotent.
func (f *Finder) RemoveNetns(n Netns) error {
	// A file that holds none, because its maker was killed before the mount or after the unmount, is no mount point.
	if err := unix.Unmount(n.Path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting the network namespace %s: %w", n.Path, err)
	}
	if err := os.Remove(n.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the file of a network namespace: %w", err)
	}
	return nil
}

// RemoveBundle ends what containerd had begun: a folder that it has renamed to be removed. One below which something is mounted stays,
// for what is mounted is a container's file system. Idempotent.
func (f *Finder) RemoveBundle(b Bundle) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("listing the mounts: %w", err)
	}
	if strings.Contains(string(mounts), " "+b.Path+"/") {
		return fmt.Errorf("something is mounted in %s, which the runtime had begun to remove", b.Path)
	}
	if err := os.RemoveAll(b.Path); err != nil {
		return fmt.Errorf("removing a bundle's folder: %w", err)
	}
	return nil
}
