// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package stray

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

func TestParseCommand(t *testing.T) {
	for _, c := range []struct{ args, id string }{
		{"shim -namespace k8s.io -id a -address /run/c.sock", "a"},
		{"shim -namespace k8s.io -id a -address /run/c.sock -debug", "a"},
		{"shim -namespace moby -id a -address /run/c.sock", ""},
		{"shim -namespace k8s.io -address /run/c.sock -publish-binary /c -id a start", ""},
		{"shim -namespace k8s.io -id a -address /run/c.sock -bundle /b delete", ""},
		{"shim -namespace k8s.io -id a -address", ""},
		{"shim -namespace k8s.io -id a -address c.sock", ""},
		{"shim -namespace k8s.io -address /run/c.sock", ""},
		{"shim", ""},
	} {
		id, address, ok := parseCommand(strings.ReplaceAll(c.args, " ", "\x00") + "\x00")
		if ok != (c.id != "") || ok && (id != c.id || address != "/run/c.sock") {
			t.Errorf("%s: %q %q %v", c.args, id, address, ok)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 9 0 4711 0"
	for _, command := range []string{"containerd-shim", "a) S 1 (b", ""} {
		got, ok := parseStat(12, "12 ("+command+")"+rest)
		if want := (process{pid: 12, parent: 7, command: command, started: 4711}); !ok || got != want {
			t.Errorf("%q: %+v, %v", command, got, ok)
		}
	}
	for _, text := range []string{"", "12 (a", "12 (a) S 7", "12 (a)" + strings.Replace(rest, "7", "x", 1)} {
		if got, ok := parseStat(12, text); ok {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestReadLayout(t *testing.T) {
	const state = `"stateDir":"/run/c/io.containerd.grpc.v1.cri","containerdEndpoint":"/run/c/c.sock"`
	for _, c := range []struct {
		config string
		want   layout
		ok     bool
	}{
		{`{` + state + `}`, layout{socket: "/run/c/c.sock", state: "/run/c"}, true},
		{`{` + state + `,"netnsMountsUnderStateDir":true}`, layout{socket: "/run/c/c.sock", state: "/run/c", netns: "/run/c/io.containerd.grpc.v1.cri/netns"}, true},
		{`{"stateDir":"run","containerdEndpoint":"/run/c/c.sock"}`, layout{}, false},
		{`{"sandboxImage":"pause"}`, layout{}, false},
		{"", layout{}, false},
	} {
		if got, ok := readLayout(map[string]string{"config": c.config}); ok != c.ok || got != c.want {
			t.Errorf("%s: %+v, %v", c.config, got, ok)
		}
	}
}

// rig is a containerd's folder, and a folder for /proc.
type rig struct {
	t      *testing.T
	finder *Finder
	state  string
	socket string
}

func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	r := &rig{t: t, state: filepath.Join(dir, "state"), socket: filepath.Join(dir, "c.sock")}
	r.finder = &Finder{proc: filepath.Join(dir, "proc"), Info: func(context.Context) (map[string]string, error) {
		return map[string]string{"config": fmt.Sprintf(`{"stateDir":"%s/cri","containerdEndpoint":"%s","netnsMountsUnderStateDir":true}`, r.state, r.socket)}, nil
	}}
	r.write(filepath.Join(r.finder.proc, "uptime"), "1000.50 1800.00\n")
	listener, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return r
}

func (r *rig) write(path, text string) {
	r.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		r.t.Fatal(err)
	}
}

// process is one of /proc; root is what it sees as its root.
func (r *rig) process(pid, parent int, command, args, cwd, root string) {
	r.t.Helper()
	dir := filepath.Join(r.finder.proc, strconv.Itoa(pid))
	r.write(filepath.Join(dir, "stat"), fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 9 0 90000 0", pid, command, parent))
	r.write(filepath.Join(dir, "cmdline"), strings.ReplaceAll(args, " ", "\x00")+"\x00")
	if err := errors.Join(os.Symlink(cwd, filepath.Join(dir, "cwd")), os.Symlink(root, filepath.Join(dir, "root"))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) shim(pid int, id, cwd, root string) {
	r.process(pid, 1, "containerd-shim", "shim -namespace k8s.io -id "+id+" -address "+r.socket, cwd, root)
}

func TestFind(t *testing.T) {
	r := newRig(t)
	r.shim(11, "running", "/b/running", "/")
	r.process(12, 11, "pause", "pause", "/", "/")
	r.shim(21, "lost", "/b/.lost (deleted)", "/")
	r.process(31, 1, "containerd-shim", "shim -namespace k8s.io -id other -address /run/other.sock", "/b/other (deleted)", "/")
	r.process(32, 1, "sh", "shim -namespace k8s.io -id fake -address "+r.socket, "/b/fake (deleted)", "/")
	// A containerd in a container: a socket of the same name in another root.
	r.write(filepath.Join(r.state, "root", r.socket), "")
	r.shim(33, "contained", "/b/contained (deleted)", filepath.Join(r.state, "root"))
	// Two namespaces, of which a process is in one.
	used := filepath.Join(r.state, "cri/netns/cni-used")
	r.write(used, "")
	r.write(filepath.Join(r.state, "cri/netns/cni-lost"), "")
	if err := os.MkdirAll(filepath.Join(r.finder.proc, "12/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(used, filepath.Join(r.finder.proc, "12/ns/net")); err != nil {
		t.Fatal(err)
	}
	bundles := filepath.Join(r.state, "io.containerd.runtime.v2.task/k8s.io")
	for _, name := range []string{"running", ".half"} {
		if err := os.MkdirAll(filepath.Join(bundles, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.finder.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	age := 1000*time.Second + 500*time.Millisecond - 900*time.Second
	want := Found{
		Shims:   []Shim{{PID: 11, ID: "running", Age: age, Busy: true}, {PID: 21, ID: "lost", Age: age, Folderless: true}},
		Netns:   []Netns{{Path: filepath.Join(r.state, "cri/netns/cni-lost")}, {Path: used, Used: true}},
		Bundles: []Bundle{{Path: filepath.Join(bundles, ".half"), ID: "half", Dropped: true}, {Path: filepath.Join(bundles, "running"), ID: "running"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(time.Time{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if since := time.Since(got.Since); since < 0 || since > time.Minute {
		t.Errorf("the runtime is said to serve since %s", got.Since)
	}
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	if got, err := r.finder.Find(t.Context()); err != nil || !cmp.Equal(got, Found{}) {
		t.Errorf("of a runtime elsewhere this is found: %+v, %v", got, err)
	}
}

func TestEndShim(t *testing.T) {
	begin := func() *exec.Cmd {
		c := exec.Command("sleep", "600")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = c.Process.Kill(), c.Wait() })
		return c
	}
	r := newRig(t)
	lost, busy, foldered, renamed := begin(), begin(), begin(), begin()
	gone := " (deleted)"
	r.shim(lost.Process.Pid, "id", "/b/id"+gone, "/")
	r.shim(busy.Process.Pid, "id", "/b/id"+gone, "/")
	r.process(1<<30, busy.Process.Pid, "pause", "pause", "/", "/")
	r.shim(foldered.Process.Pid, "id", "/b/id", "/")
	r.shim(renamed.Process.Pid, "another", "/b/another"+gone, "/")
	for _, c := range []*exec.Cmd{busy, foldered, renamed, lost} {
		if err := r.finder.EndShim(t.Context(), Shim{PID: c.Process.Pid, ID: "id"}); err != nil {
			t.Error(err)
		}
	}
	_ = lost.Wait()
	if status, ok := lost.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("the forgotten shim ended with %v", lost.ProcessState)
	}
	for name, c := range map[string]*exec.Cmd{"with processes": busy, "with a folder": foldered, "of another ID": renamed} {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, c.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || info.Signo != 0 {
			t.Errorf("the shim %s was ended: %v", name, err)
		}
	}
	if err := r.finder.EndShim(t.Context(), Shim{PID: lost.Process.Pid, ID: "id"}); err != nil {
		t.Errorf("a shim that is gone: %v", err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	f := &Finder{}
	file := filepath.Join(dir, "cni-1")
	bundle := filepath.Join(dir, ".id")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(bundle, 0o700), os.WriteFile(filepath.Join(bundle, "config.json"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Mount("/proc/self/ns/net", file, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := errors.Join(f.RemoveNetns(Netns{Path: file}), f.RemoveBundle(Bundle{Path: bundle})); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestRemoveBundleKeepsMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	bundle := filepath.Join(t.TempDir(), ".id")
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", rootfs, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(rootfs, 0); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(rootfs, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&Finder{}).RemoveBundle(Bundle{Path: bundle}); err == nil {
		t.Error("a mount that is left isn't told")
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file in a container's file system is gone: %v", err)
	}
}
