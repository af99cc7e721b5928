// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package podnetwork

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lease is an address that a sandbox holds.
type Lease struct {
	Path string
	// Sandbox is the runtime's ID of it.
	Sandbox string
	Made    time.Time
	// Used: the network namespace that the address was given to is there, whichever runtime's it is.
	Used bool

	result string
}

// Leases are the addresses that were given out by the configuration that WriteConf has written into a CNI folder. Where another's
// configuration rules there are none: its addresses are its own.
type Leases struct {
	// ConfDir is the CNI folder.
	ConfDir string
	// Results is where the CNI library keeps what the plugins said; its own default when empty.
	Results string
}

// networkName is that of the one network, and of the folder of its addresses.
const networkName = "pinnace"

// dir is the folder of the addresses; empty when there is none that is ours.
func (l Leases) dir() (string, error) {
	data, err := os.ReadFile(filepath.Join(l.ConfDir, confName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the CNI configuration: %w", err)
	}
	var conf struct {
		Name    string `json:"name"`
		Plugins []struct {
			IPAM ipam `json:"ipam"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return "", fmt.Errorf("reading the CNI configuration: %w", err)
	}
	if conf.Name != networkName || len(conf.Plugins) != 1 || !filepath.IsAbs(conf.Plugins[0].IPAM.DataDir) {
		return "", nil
	}
	return filepath.Join(conf.Plugins[0].IPAM.DataDir, networkName), nil
}

// List returns all leases.
func (l Leases) List() ([]Lease, error) {
	dir, err := l.dir()
	if err != nil || dir == "" {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the pods' addresses: %w", err)
	}
	var out []Lease
	for _, e := range entries {
		// Beside the addresses there are a lock and the last address of each range.
		if _, err := netip.ParseAddr(e.Name()); err != nil {
			continue
		}
		lease := Lease{Path: filepath.Join(dir, e.Name())}
		info, err := e.Info()
		if err != nil {
			continue // It was given back meanwhile.
		}
		sandbox, device, ok := readLease(lease.Path)
		if !ok {
			continue
		}
		lease.Made, lease.Sandbox = info.ModTime(), sandbox
		lease.result = filepath.Join(l.results(), networkName+"-"+sandbox+"-"+device)
		lease.Used = usedBy(lease.result)
		out = append(out, lease)
	}
	return out, nil
}

func (l Leases) results() string {
	if l.Results != "" {
		return l.Results
	}
	return "/var/lib/cni/results"
}

// readLease reads a lease as host-local writes it: the container's ID and the interface's name, each on a line.
func readLease(path string) (sandbox, device string, ok bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", "", false
	}
	sandbox, device, ok = strings.Cut(strings.TrimSpace(string(data)), "\n")
	sandbox, device = strings.TrimSpace(sandbox), strings.TrimSpace(device)
	return sandbox, device, ok && sandbox != "" && !strings.ContainsAny(sandbox+device, "/.")
}

// usedBy reads what the CNI library has kept of an attachment, and looks whether the network namespace is there.
func usedBy(result string) bool {
	data, err := os.ReadFile(result)
	if err != nil {
		return false
	}
	var kept struct {
		Netns string `json:"netns"`
	}
	if err := json.Unmarshal(data, &kept); err != nil {
		return true // Nobody knows.
	}
	return kept.Netns != "" && isNetns(kept.Netns)
}

// Release gives an address back, with what the CNI library has kept of it, if the same sandbox still holds it. Idempotent.
func (l Leases) Release(lease Lease) error {
	// host-local's own lock: between our look and our removal it may give the address to another sandbox.
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(lease.Path), "lock"), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("locking the pods' addresses: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking the pods' addresses: %w", err)
	}
	if sandbox, _, ok := readLease(lease.Path); !ok || sandbox != lease.Sandbox {
		return nil
	}
	for _, path := range []string{lease.Path, lease.result} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("giving the address %s back: %w", filepath.Base(lease.Path), err)
		}
	}
	return nil
}
