// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinnace-dev/pinnace/internal/supervise"
)

// fakeAssets has empty programs: enough for what comes before they are run.
func fakeAssets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{Etcd, APIServer, ControllerManager} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/false\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBadInput(t *testing.T) {
	t.Setenv("KUBEBUILDER_ASSETS", "")
	assets := fakeAssets(t)
	for _, tc := range []struct {
		name    string
		options Options
		want    string
	}{
		{"no data folder", Options{Assets: assets}, "the durable control plane needs a data folder: give one with --data-dir"},
		{"no assets", Options{DataDir: "/d"}, "where etcd and kube-apiserver lie is not known: build them with `make assets`, or set KUBEBUILDER_ASSETS to their folder"},
		{"assets missing", Options{DataDir: "/d", Assets: "/nowhere"}, "/nowhere has no etcd, kube-apiserver, kube-controller-manager: build the missing programs with `make assets`, or set KUBEBUILDER_ASSETS to a folder that has them"},
		{"bad address", Options{DataDir: "/d", Assets: assets, BindAddress: "localhost"}, `the API server's address "localhost" is no IP address: give one such as 127.0.0.1 or 0.0.0.0`},
		{"bad port", Options{DataDir: "/d", Assets: assets, APIPort: 70000, PortFlag: "--port"}, "the API server's port 70000 is not between 1 and 65535: choose another with --port"},
		{"bad range", Options{DataDir: "/d", Assets: assets, ServiceCIDR: "10.96.0.0"}, `the service range "10.96.0.0" is no network: give one such as 10.96.0.0/16`},
		{"no audit policy", Options{DataDir: "/d", Assets: assets, AuditPolicyFile: "/nowhere.yaml"}, "reading the audit policy: stat /nowhere.yaml: no such file or directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Start(t.Context(), tc.options)
			if err == nil {
				t.Fatal("it started")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = Start(t.Context(), Options{DataDir: t.TempDir(), Assets: fakeAssets(t), APIPort: port})
	want := "port " + strconv.Itoa(port) + " on 127.0.0.1 is taken by another program: stop that program, or choose another port with --api-port"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLockDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	release, err := LockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDataDir(dir)
	if err == nil {
		t.Fatal("the folder was locked twice")
	}
	for _, part := range []string{"pid " + strconv.Itoa(os.Getpid()), dir, "--data-dir"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error %q does not name %s", err, part)
		}
	}
	release()
	release, err = LockDataDir(dir)
	if err != nil {
		t.Fatalf("the lock was not released: %v", err)
	}
	release()
}

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	err := checkFree(dir, 1<<62)
	if err == nil || !strings.Contains(err.Error(), "the disk of "+dir+" has only ") || !strings.Contains(err.Error(), "make room there") {
		t.Errorf("got %v", err)
	}
	event := supervise.Event{Name: Etcd, Err: errors.New("it ended"), Log: []string{"a line"}}
	if got := gaveUp(event, dir, 1<<62).Error(); !strings.Contains(got, "etcd is not restarted any more: the disk of "+dir) || strings.Contains(got, "a line") {
		t.Errorf("got %v", got)
	}
	if got := gaveUp(event, dir, 1).Error(); !strings.Contains(got, "it ended") || !strings.Contains(got, "a line") {
		t.Errorf("got %v", got)
	}
	full := &os.PathError{Op: "write", Path: "/d/x", Err: syscall.ENOSPC}
	if got := explain(full, "/d"); !strings.HasPrefix(got.Error(), "the disk of /d is full: make room there") || !errors.Is(got, syscall.ENOSPC) {
		t.Errorf("got %v", got)
	}
}

// TestStartScript sees quoting: the folder's name is the user's choice.
func TestStartScript(t *testing.T) {
	got := startScript("/it's/etcd", "/run dir/etcd.pid", "25")
	for _, want := range []string{`exec '/it'\''s/etcd' "$@"`, `> '/run dir/etcd.pid' `, "export GOGC='25'"} {
		if !strings.Contains(got, want) {
			t.Errorf("the script lacks %s:\n%s", want, got)
		}
	}
}

// TestOurs sees that the flags by which leftovers are known are those that
// processes are started with.
func TestOurs(t *testing.T) {
	o, err := Options{DataDir: "/data", Assets: fakeAssets(t)}.complete()
	if err != nil {
		t.Fatal(err)
	}
	l := layout{o.DataDir}
	certs := &certificates{dir: t.TempDir(), now: time.Now}
	api := durableAPIServer(o, l, etcdPorts{}, serverFiles{}, &authn{certs})
	lines := map[string][]string{
		// envtest adds these two flags itself, from the fields.
		Etcd:              {"/assets/etcd", "--data-dir=" + durableEtcd(l, etcdPorts{}).DataDir},
		APIServer:         {"/assets/kube-apiserver", "--cert-dir=" + api.CertDir},
		ControllerManager: append([]string{"/assets/kube-controller-manager"}, controllerManagerArgs(GenericControllers, l.kubeconfig(ControllerManager), "", "", "", "")...),
	}
	for process, line := range lines {
		if !l.ours(process)(line) {
			t.Errorf("%s is not known by %v", process, line)
		}
		if (layout{"/other"}).ours(process)(line) {
			t.Errorf("%s of another folder is taken for ours", process)
		}
		if l.ours(process)(append([]string{"/usr/bin/tail"}, line[1:]...)) {
			t.Errorf("another program with the flags of %s is taken for ours", process)
		}
	}
}

func TestEncryptionKeyIsKept(t *testing.T) {
	l := layout{t.TempDir()}
	if err := l.prepare(false); err != nil {
		t.Fatal(err)
	}
	read := func(plain bool) string {
		t.Helper()
		file, err := l.ensureEncryption(plain)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := read(false)
	if second := read(false); second != first {
		t.Error("the configuration changed with the second start")
	}
	// The first provider writes; the other must still read.
	plain := read(true)
	if strings.Index(first, "secretbox") > strings.Index(first, "identity") || strings.Index(plain, "secretbox") < strings.Index(plain, "identity") {
		t.Errorf("the providers' order is wrong:\n%s\n%s", first, plain)
	}
	if err := os.WriteFile(l.path("config", "encryption.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ensureEncryption(false); err == nil {
		t.Error("a damaged key was accepted")
	}
}
