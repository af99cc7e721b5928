// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// MinFreeBytes is the space below which a durable control plane is not
// started: a store that fills the disk while it starts can damage more than
// it helps.
const MinFreeBytes = 200 << 20

// fullBytes is the space below which a disk is as good as full.
const fullBytes = 10 << 20

// layout names the files of one data folder.
type layout struct{ dir string }

func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l layout) pki() string                { return l.path("pki") }
func (l layout) etcdData() string           { return l.path("etcd") }
func (l layout) adminKubeconfig() string    { return l.path("kubeconfig") }
func (l layout) kubeconfig(n string) string { return l.path("kubeconfigs", n) }
func (l layout) log(process string) string  { return l.path("log", process+".log") }
func (l layout) pid(process string) string  { return l.path("run", process+".pid") }
func (l layout) script(p string) string     { return l.path("run", p) }

// prepare makes the folders and checks the space. The data folder itself may
// be passed through, since containers of other users live below it; what is
// secret lies in folders that only the owner may enter.
func (l layout) prepare(checkSpace bool) error {
	if err := os.MkdirAll(l.dir, 0o711); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	if checkSpace {
		if err := checkFree(l.dir, MinFreeBytes); err != nil {
			return err
		}
	}
	for _, sub := range []string{"pki", "kubeconfigs", "config", "etcd", "log", "run"} {
		if err := os.MkdirAll(l.path(sub), 0o700); err != nil {
			return fmt.Errorf("making the data folder: %w", err)
		}
		// MkdirAll leaves the mode of a folder that is there already.
		if err := os.Chmod(l.path(sub), 0o700); err != nil {
			return fmt.Errorf("closing the data folder to others: %w", err)
		}
	}
	return nil
}

func checkFree(dir string, needed uint64) error {
	var fsinfo unix.Statfs_t
	if err := unix.Statfs(dir, &fsinfo); err != nil {
		return fmt.Errorf("looking at the free space of %s: %w", dir, err)
	}
	free := fsinfo.Bavail * uint64(fsinfo.Bsize)
	if free < needed {
		return fmt.Errorf("the disk of %s has only %d MB left and the control plane needs %d MB: make room there, or choose another folder with --data-dir",
			dir, free>>20, needed>>20)
	}
	return nil
}

// explain adds the way out to errors that have one.
func explain(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk of %s is full: make room there, or choose another folder with --data-dir: %w", dir, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("this user may not write in %s: choose another folder with --data-dir, or run as its owner: %w", dir, err)
	}
	return err
}

// LockDataDir makes the data folder, if need be, and holds it for this
// program until release is called or the program ends, however it ends. When
// another program holds it, the error names that program.
func LockDataDir(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, explain(fmt.Errorf("making the data folder; --data-dir names another: %w", err), dir)
	}
	release, err = Hold(filepath.Join(dir, "lock"))
	var held *HeldError
	if errors.As(err, &held) {
		return nil, fmt.Errorf("another process%s holds the data folder %s: stop it, or choose another folder with --data-dir", held.Holder, dir)
	}
	if err != nil {
		return nil, explain(fmt.Errorf("locking the data folder: %w", err), dir)
	}
	return release, nil
}

// HeldError tells that another program holds a lock file.
type HeldError struct {
	Path string
	// Holder is that program, as " (pid 7, pinnace)"; empty where it can't be told.
	Holder string
}

// Error is one sentence.
func (e *HeldError) Error() string {
	return fmt.Sprintf("another process%s holds %s", e.Holder, e.Path)
}

// Hold takes a lock file until release is called or the program ends, however
// it ends. When another program has it, the error is a HeldError.
func Hold(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &HeldError{path, holder(path)}
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// The lock is the file's, not its content's: the id only helps people.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// holder describes the process whose id stands in the lock file.
func holder(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return ""
	}
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return fmt.Sprintf(" (pid %d)", pid)
	}
	return fmt.Sprintf(" (pid %d, %s)", pid, strings.TrimSpace(string(name)))
}

// checkPort tells in one sentence when kube-apiserver's port is taken.
func checkPort(o Options) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(o.BindAddress, strconv.Itoa(o.APIPort)))
	if err == nil {
		return listener.Close()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d on %s is taken by another program: stop that program, or choose another port with %s", o.APIPort, o.BindAddress, o.PortFlag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("this machine has no address %s for the API server to listen on: choose one that `ip address` lists", o.BindAddress)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("this user may not listen on port %d: choose one above 1023 with %s", o.APIPort, o.PortFlag)
	}
	return fmt.Errorf("listening on port %d: %w", o.APIPort, err)
}

// freePorts finds free ports on loopback below the range from which the kernel
// gives ports to clients (32768 and up by default), so that none is snatched
// away while its process is restarted.
func freePorts(n int) ([]int, error) {
	const first, span, tries = 20000, 12000, 200
	var ports []int
	for range tries {
		port := first + rand.IntN(span)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer listener.Close() // held until all are found, so that they differ
		ports = append(ports, port)
		if len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("found no %d free ports between %d and %d on 127.0.0.1", n, first, first+span)
}
