// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Volume is one volume to make: exactly one of Empty, Host and Files is set.
type Volume struct {
	Name  string
	Empty *Empty
	Host  *Host
	Files *Files
}

// Empty is a folder that lives as long as its pod.
type Empty struct {
	// Memory keeps it in memory, as a tmpfs of at most SizeLimit bytes (0: the kernel's default).
	Memory    bool
	SizeLimit int64
}

// Host is a path of the node.
type Host struct {
	Path string
	Type corev1.HostPathType
}

// Files is a folder of files, given by relative path.
type Files struct {
	Data map[string]File
	// Memory keeps them in memory; for secrets, where the machine allows it.
	Memory bool
}

// File is one file's content and permission bits.
type File struct {
	Data []byte
	Mode fs.FileMode
	// Owner is the user it belongs to; nil: root.
	Owner *int64
}

// Manager makes volumes below a folder. Its methods may run concurrently for different pods.
type Manager struct {
	root string
}

// New makes the folder if need be. It should be on a file system that keeps what is written over a restart.
func New(root string) (*Manager, error) {
	if err := os.MkdirAll(filepath.Join(root, "pods"), 0o750); err != nil {
		return nil, fmt.Errorf("making the folder of the pods' volumes: %w", err)
	}
	return &Manager{root: root}, nil
}

// PodDir is the folder of one pod.
func (m *Manager) PodDir(pod types.UID) string { return filepath.Join(m.root, "pods", string(pod)) }

// VolumeDir is where a volume of a pod lies that belongs to it.
func (m *Manager) VolumeDir(pod types.UID, volume string) string {
	return filepath.Join(m.PodDir(pod), "volumes", volume)
}

// Pods lists the pods of which there is something on disk.
func (m *Manager) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.root, "pods"))
	if err != nil {
		return nil, fmt.Errorf("listing the pods' folders: %w", err)
	}
	out := make([]types.UID, 0, len(entries))
	for _, e := range entries {
		out = append(out, types.UID(e.Name()))
	}
	return out, nil
}

// Mount makes the volumes, or brings them up to date, and returns their paths on the host by name. It is idempotent. fsGroup
// gets access to volumes that belong to the pod.
func (m *Manager) Mount(pod types.UID, volumes []Volume, fsGroup *int64) (map[string]string, error) {
	out := make(map[string]string, len(volumes))
	for _, v := range volumes {
		path := filepath.Join(m.PodDir(pod), "volumes", v.Name)
		var err error
		switch {
		case v.Empty != nil:
			err = mountEmpty(path, v.Empty, fsGroup)
		case v.Host != nil:
			path, err = v.Host.Path, checkHost(v.Host)
		case v.Files != nil:
			err = mountFiles(path, v.Files, fsGroup)
		default:
			err = errors.New("this kind of volume is not supported")
		}
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Name, err)
		}
		out[v.Name] = path
	}
	return out, nil
}

// Unmount removes all that belongs to the pod. Idempotent. What lies on the node itself (hostPath) is not touched.
func (m *Manager) Unmount(pod types.UID) error {
	dir := m.PodDir(pod)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Nothing below may be a mount any more, or removing would delete what is mounted there.
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", mounts[i], err)
		}
	}
	if left, err := mountsBelow(dir); err != nil || len(left) > 0 {
		return fmt.Errorf("mounts are left below the pod's folder, not removing it: %v %w", left, errors.Join(err))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the pod's folder: %w", err)
	}
	return nil
}

// WriteFile writes a file of the pod that isn't in a volume, such as etc-hosts, unless it is there already with that content.
func (m *Manager) WriteFile(pod types.UID, name string, data []byte, mode fs.FileMode) (string, error) {
	path := filepath.Join(m.PodDir(pod), name)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) && len(data) > 0 {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("making the folder of %s: %w", name, err)
	}
	// In place, for a container may have the file mounted.
	if err := os.WriteFile(path, data, mode); err != nil {
		return "", fmt.Errorf("writing %s: %w", name, err)
	}
	return path, os.Chmod(path, mode)
}

func mountEmpty(path string, e *Empty, fsGroup *int64) error {
	if _, err := os.Lstat(path); err == nil && !e.Memory {
		return nil
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return fmt.Errorf("making an emptyDir: %w", err)
	}
	if e.Memory {
		if mounted, err := isMount(path); err != nil || mounted {
			return err
		}
		options := "mode=0777"
		if e.SizeLimit > 0 {
			options += ",size=" + strconv.FormatInt(e.SizeLimit, 10)
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
			return fmt.Errorf("mounting a tmpfs for an emptyDir in memory: %w", err)
		}
	}
	mode := fs.FileMode(0o777)
	if fsGroup != nil {
		if err := os.Chown(path, -1, int(*fsGroup)); err != nil {
			return fmt.Errorf("giving an emptyDir to the fsGroup: %w", err)
		}
		mode |= fs.ModeSetgid
	}
	// MkdirAll's mode is cut by the umask.
	return os.Chmod(path, mode)
}

func checkHost(h *Host) error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("hostPath %q must be absolute", h.Path)
	}
	switch h.Type {
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(h.Path, 0o755); err != nil {
			return fmt.Errorf("making hostPath %s: %w", h.Path, err)
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return fmt.Errorf("making hostPath %s: %w", h.Path, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("making hostPath %s: %w", h.Path, err)
		}
	case corev1.HostPathUnset:
		return nil // The runtime makes a folder when nothing is there.
	}
	info, err := os.Stat(h.Path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s is not there: %w", h.Path, err)
	}
	return checkHostType(h, info.Mode())
}

func checkHostType(h *Host, mode fs.FileMode) error {
	var ok bool
	var want string
	switch h.Type {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok, want = mode.IsDir(), "a directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok, want = mode.IsRegular(), "a file"
	case corev1.HostPathSocket:
		ok, want = mode&fs.ModeSocket != 0, "a socket"
	case corev1.HostPathCharDev:
		ok, want = mode&fs.ModeCharDevice != 0, "a character device"
	case corev1.HostPathBlockDev:
		ok, want = mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0, "a block device"
	default:
		return fmt.Errorf("hostPath type %q is unknown", h.Type)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not %s", h.Path, want)
	}
	return nil
}

// mountsBelow lists the mount points below a folder, the outer ones first.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mounts: %w", err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the pod's folder: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == real || strings.HasPrefix(point, real+"/") {
			out = append(out, point)
		}
	}
	return out, nil
}

func isMount(path string) (bool, error) {
	below, err := mountsBelow(path)
	if err != nil {
		return false, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, fmt.Errorf("finding %s: %w", path, err)
	}
	for _, point := range below {
		if point == real {
			return true, nil
		}
	}
	return false, nil
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
