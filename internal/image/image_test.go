// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/pinnace-dev/pinnace/internal/controlplane/pki"
)

// rig is a registry that serves, with everything a client needs.
type rig struct {
	dir    string
	info   Info
	tls    *tls.Config
	server *Server
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir()}
	now := time.Now()
	authority, err := pki.OpenAuthority(r.dir, "ca", now)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := authority.EnsureLeaf(r.dir, pki.Leaf{Name: "server", CommonName: "registry", Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, now)
	if err != nil {
		t.Fatal(err)
	}
	client, err := authority.EnsureLeaf(r.dir, pki.Leaf{Name: "client", CommonName: "client", Client: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	r.info = Info{CAFile: authority.CertFile(), ClientCertFile: client.CertFile, ClientKeyFile: client.KeyFile}
	if r.tls, err = ServerTLS(serving.CertFile, serving.KeyFile, authority.CertFile()); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	return r
}

func (r *rig) start(t *testing.T) {
	t.Helper()
	registry, err := OpenRegistry(filepath.Join(r.dir, "registry"))
	if err != nil {
		t.Fatal(err)
	}
	if r.server, err = registry.Serve([]string{"127.0.0.1:0"}, r.tls); err != nil {
		t.Fatal(err)
	}
	r.info.Addresses = r.server.Addresses()
	t.Cleanup(func() { r.stop(t) })
}

func (r *rig) stop(t *testing.T) {
	t.Helper()
	if r.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.server.Close(ctx); err != nil {
		t.Error(err)
	}
	r.server = nil
}

func (r *rig) client(t *testing.T) *Client {
	t.Helper()
	c, err := NewClient(r.info)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get asks as containerd asks its mirror.
func (r *rig) get(t *testing.T, path string) (int, []byte) {
	t.Helper()
	response, err := (&http.Client{Transport: r.client(t).transport}).Get("https://" + r.info.Addresses[0] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func names(t *testing.T, c *Client) []string {
	t.Helper()
	items, err := c.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, item := range items {
		refs = append(refs, item.Reference.String())
	}
	return refs
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(1024, 2)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestParseReference(t *testing.T) {
	for _, c := range []struct{ in, full, repository string }{
		{"nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx"},
		{"hello:v1", "docker.io/library/hello:v1", "docker.io/library/hello"},
		{"docker.io/library/x:1", "docker.io/library/x:1", "docker.io/library/x"},
		{"pinnace.dev/hello:v1", "pinnace.dev/hello:v1", "pinnace.dev/hello"},
		{"localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost__5000/a/b"},
		{
			"x.io/y@sha256:" + strings.Repeat("a", 64), "x.io/y@sha256:" + strings.Repeat("a", 64), "x.io/y",
		},
	} {
		ref, err := ParseReference(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if ref.String() != c.full || ref.repository() != c.repository {
			t.Errorf("%s: got %s in %s, want %s in %s", c.in, ref, ref.repository(), c.full, c.repository)
		}
		if back := fromRepository(ref.repository(), ref.Identifier); back != ref {
			t.Errorf("%s: came back as %s", c.in, back)
		}
	}
	if _, err := ParseReference("Not An Image"); err == nil || !strings.Contains(err.Error(), "is no image name") {
		t.Errorf("a bad name: %v", err)
	}
}

func TestPushedImagesServeAsMirrorAndSurviveRestarts(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	index, err := random.Index(512, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	single := randomImage(t)
	for ref, push := range map[string]func(Reference) error{
		"hello:v1":           func(ref Reference) error { return r.client(t).Push(ctx, ref, single) },
		"pinnace.dev/many:1": func(ref Reference) error { return r.client(t).Push(ctx, ref, index) },
	} {
		parsed, err := ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := push(parsed); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		if diff := cmp.Diff([]string{"docker.io/library/hello:v1", "pinnace.dev/many:1"}, names(t, r.client(t))); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
		status, manifest := r.get(t, "/v2/library/hello/manifests/v1?ns=docker.io")
		want, err := single.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		if status != http.StatusOK || !bytes.Equal(manifest, want) {
			t.Errorf("%s: the manifest came with status %d: %s", when, status, manifest)
		}
		layers, err := single.Layers()
		if err != nil {
			t.Fatal(err)
		}
		digest, err := layers[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := r.get(t, "/v2/library/hello/blobs/"+digest.String()+"?ns=docker.io"); status != http.StatusOK {
			t.Errorf("%s: the layer came with status %d", when, status)
		}
		if status, _ := r.get(t, "/v2/library/other/manifests/v1?ns=docker.io"); status != http.StatusNotFound {
			t.Errorf("%s: an unknown image came with status %d, and so never from its own registry", when, status)
		}
	}
	check("at first")
	r.stop(t)
	r.start(t)
	check("after a restart")
}

func TestReplacedImagesLeaveNothingBehind(t *testing.T) {
	r := newRig(t)
	ref, err := ParseReference("x.io/y:1")
	if err != nil {
		t.Fatal(err)
	}
	blobs := func() int {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(r.dir, "registry", "blobs", "sha256"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	for range 2 {
		if err := r.client(t).Push(context.Background(), ref, randomImage(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := blobs(); n != 6 {
		t.Errorf("two images of a configuration and two layers have %d blobs", n)
	}
	r.stop(t)
	r.start(t)
	if n := blobs(); n != 3 {
		t.Errorf("after a restart %d blobs are left of the one image", n)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	r := newRig(t)
	pool, err := readPool(r.info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if response, err := stranger.Get("https://" + r.info.Addresses[0] + "/v2/"); err == nil {
		_ = response.Body.Close()
		t.Errorf("a client without a certificate got in: %s", response.Status)
	}
	registry, err := OpenRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Serve([]string{"127.0.0.1:0"}, &tls.Config{}); err == nil {
		t.Error("a registry that asks for no certificate was served")
	}
	_, err = registry.Serve([]string{r.info.Addresses[0]}, r.tls)
	if err == nil || !strings.Contains(err.Error(), "taken by another program") {
		t.Errorf("a taken port: %v", err)
	}
}

func TestWrongDigestIsRefused(t *testing.T) {
	r := newRig(t)
	c := &http.Client{Transport: r.client(t).transport}
	url := "https://" + r.info.Addresses[0] + "/v2/a/b/blobs/uploads/?digest=sha256:" + strings.Repeat("0", 64)
	response, err := c.Post(url, "application/octet-stream", strings.NewReader("not that"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("a blob with another digest than announced came in: %s", response.Status)
	}
	left, err := filepath.Glob(filepath.Join(r.dir, "registry", "blobs", "*", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("it left %v (%v)", left, err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	img := randomImage(t)

	if err := WriteTar(path("docker.tar"), "hello:v1", img); err != nil {
		t.Fatal(err)
	}
	writeGzip(t, path("docker.tar.gz"), path("docker.tar"))
	writeLayout(t, path("containerd.tar"), img, map[string]string{annotationContainerd: "pinnace.dev/hello:v2", annotationOCI: "v2"})
	writeLayout(t, path("oci.tar"), img, map[string]string{annotationOCI: "quay.io/a/b:c"})
	writeLayout(t, path("unnamed.tar"), img, map[string]string{annotationOCI: "v1"})
	writeTar(t, path("other.tar"), map[string]string{"README": "no image"})
	for name, content := range map[string]string{"text.tar": "this is no tar file at all", "empty.tar": ""} {
		if err := os.WriteFile(path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path("docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("cut.tar"), whole[:len(whole)*2/3], 0o600); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		file string
		refs []string
		err  string
	}{
		{file: "docker.tar", refs: []string{"docker.io/library/hello:v1"}},
		{file: "docker.tar.gz", refs: []string{"docker.io/library/hello:v1"}},
		{file: "containerd.tar", refs: []string{"pinnace.dev/hello:v2"}},
		{file: "oci.tar", refs: []string{"quay.io/a/b:c"}},
		{file: "unnamed.tar", err: "has no name"},
		{file: "other.tar", err: "it holds no image"},
		{file: "text.tar", err: "it is no tar file"},
		{file: "empty.tar", err: "it holds no image"},
		{file: "cut.tar", err: "damaged or cut short"},
		{file: "missing.tar", err: "no such file"},
	} {
		t.Run(c.file, func(t *testing.T) {
			r := newRig(t)
			refs, err := r.client(t).Load(context.Background(), path(c.file))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), c.file) {
					t.Errorf("error %v, want one about %q that names the file", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.refs, refs); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.refs, names(t, r.client(t))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestUnpackStaysInside: a tar file's names can't lead out of the folder it is unpacked into.
func TestUnpackStaysInside(t *testing.T) {
	dir := t.TempDir()
	evil := filepath.Join(dir, "evil.tar")
	writeTar(t, evil, map[string]string{"index.json": "{}", "../../escaped": "gotcha"})
	images, release, err := ReadTar(evil)
	if err == nil {
		release()
		t.Errorf("it was read: %v", images)
	}
	if _, err := os.Stat(filepath.Join(os.TempDir(), "escaped")); err == nil {
		t.Error("a file was written outside")
	}
}

func TestBuildIsTheSameEachTime(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(program, []byte("\x7fELF and so on"), 0o755); err != nil {
		t.Fatal(err)
	}
	var digests []string
	for range 2 {
		img, err := Binary{Path: program, Ports: []string{"8080/tcp"}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"/hello"}, config.Config.Entrypoint); diff != "" || config.Config.User != "65532:65532" || len(config.RootFS.DiffIDs) != 1 {
			t.Errorf("configuration: %+v", config)
		}
		if err := os.Chtimes(program, time.Now(), time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("one program gave two images: %v", digests)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := (Binary{Path: script}).Build(); err == nil || !strings.Contains(err.Error(), "is no Linux program") {
		t.Errorf("a script: %v", err)
	}
}

func TestInfo(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadInfo(dir); err == nil || !strings.Contains(err.Error(), "no `pinnace up` runs") {
		t.Errorf("without a running up: %v", err)
	}
	info := Info{Addresses: []string{"127.0.0.1:5443"}, CAFile: "/ca", ClientCertFile: "/crt", ClientKeyFile: "/key"}
	if err := WriteInfo(dir, info); err != nil {
		t.Fatal(err)
	}
	got, err := ReadInfo(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(info, got); diff != "" {
		t.Error(diff)
	}
	stat, err := os.Stat(filepath.Join(dir, infoName))
	if err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", stat.Mode(), err)
	}
	if err := WriteHosts(dir, "127.0.0.1:5443", info); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(filepath.Join(dir, "_default", "hosts.toml"))
	if err != nil || !strings.Contains(string(hosts), "[host.\"https://127.0.0.1:5443\"]") || !strings.Contains(string(hosts), `client = [["/crt", "/key"]]`) {
		t.Errorf("%s (%v)", hosts, err)
	}
}

func writeGzip(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeLayout(t *testing.T, to string, img v1.Image, annotations map[string]string) {
	t.Helper()
	dir := t.TempDir()
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Annotations: annotations}})
	if _, err := layout.Write(dir, index); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	writeTar(t, to, files)
}

func writeTar(t *testing.T, to string, files map[string]string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
