// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinnace-dev/pinnace/internal/volume"
)

// stub is a runtime that holds what a test says.
type stub struct {
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	images     []*runtimeapi.Image
	reopen     func(id string) error
	fails      error
	// infos are the details of sandboxes; asked is whose were asked for.
	infos map[string]string
	asked []string
}

func (s *stub) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	return s.sandboxes, s.fails
}

func (s *stub) ListContainers(_ context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	var out []*runtimeapi.Container
	for _, c := range s.containers {
		if filter.GetState() == nil || filter.State.State == c.State && maps.Equal(c.Labels, filter.LabelSelector) {
			out = append(out, c)
		}
	}
	return out, s.fails
}

func (s *stub) PodSandboxInfo(_ context.Context, id string) (string, error) {
	s.asked = append(s.asked, id)
	if info, ok := s.infos[id]; ok {
		return info, s.fails
	}
	return "", status.Error(codes.NotFound, "no such sandbox")
}

func (s *stub) ReopenContainerLog(_ context.Context, id string) error { return s.reopen(id) }

func (s *stub) ListImages(context.Context) ([]*runtimeapi.Image, error) { return s.images, s.fails }

func (s *stub) RemoveImage(_ context.Context, image *runtimeapi.ImageSpec) error {
	s.images = slices.DeleteFunc(slices.Clone(s.images), func(i *runtimeapi.Image) bool { return i.Id == image.Image })
	return nil
}

func (s *stub) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/images"}}}}, nil
}

func aContainer(uid, name string, attempt uint32, state runtimeapi.ContainerState) *runtimeapi.Container {
	return &runtimeapi.Container{
		Id: uid + name, State: state, Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt}, ImageId: "image-of-" + name,
		Labels: map[string]string{labelUID: uid, labelContainer: name},
	}
}

func ids(images []*runtimeapi.Image) []string {
	var out []string
	for _, i := range images {
		out = append(out, i.Id)
	}
	return out
}

func write(t *testing.T, path, text string, age time.Duration) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
		t.Fatal(err)
	}
}

// tree lists the files of a folder.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestImagesGoWhenTheDiskFills(t *testing.T) {
	clock := now
	runtime := &stub{
		images:     []*runtimeapi.Image{anImage("image-of-main", 100), anImage("named", 100, "docker.io/library/later:latest"), anImage("idle", 100), anImage("idle-too", 100)},
		containers: []*runtimeapi.Container{aContainer("p", "main", 0, runtimeapi.ContainerState_CONTAINER_EXITED)},
	}
	free := int64(500)
	var told []string
	k := New(Options{
		Runtime: runtime,
		// Time goes on while the keeper works.
		Now: func() time.Time {
			clock = clock.Add(time.Millisecond)
			return clock
		},
		Pods: func(context.Context) (Pods, error) { return Pods{Images: []string{"later"}}, nil },
		Disk: func(string) (int64, int64, error) { return 1000, free, nil },
		Tell: func(reason, _ string) { told = append(told, reason) },
	})
	look := func(want ...string) {
		t.Helper()
		if err := k.FreeImages(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, ids(runtime.images)); diff != "" {
			t.Errorf("images (-want +got):\n%s", diff)
		}
	}
	look("image-of-main", "named", "idle", "idle-too")
	free = 140 // 60 bytes too few; nobody is old enough yet.
	look("image-of-main", "named", "idle", "idle-too")
	clock = clock.Add(3 * time.Minute)
	look("image-of-main", "named", "idle-too")
	free = 0 // More than images can give.
	look("image-of-main", "named")
	if diff := cmp.Diff([]string{"FreeDiskSpaceFailed"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	runtime.containers, clock = nil, clock.Add(time.Minute)
	freed, err := k.RemoveUnusedImages(t.Context())
	if diff := cmp.Diff([]string{"named"}, ids(runtime.images)); diff != "" || freed != 100 || err != nil {
		t.Errorf("under pressure %d bytes were freed, %v; images (-want +got):\n%s", freed, err, diff)
	}
}

func TestRotateLogs(t *testing.T) {
	dir, clock := t.TempDir(), now
	log := filepath.Join(dir, "default_web_p", "main", "0.log")
	big := strings.Repeat("2026-01-02T03:04:05Z stdout F text\n", 10)
	write(t, log, big, 0)
	write(t, filepath.Join(dir, "default_web_p", "done", "0.log"), big, 0)
	write(t, filepath.Join(dir, "default_web_p", "small", "0.log"), "x", 0)
	runtime := &stub{containers: []*runtimeapi.Container{
		aContainer("p", "main", 0, runtimeapi.ContainerState_CONTAINER_RUNNING), aContainer("p", "done", 0, runtimeapi.ContainerState_CONTAINER_EXITED),
		aContainer("p", "small", 0, runtimeapi.ContainerState_CONTAINER_RUNNING),
	}}
	refuse := errors.New("not now")
	runtime.reopen = func(string) error { return refuse }
	k := New(Options{Runtime: runtime, LogDir: dir, Logs: LogPolicy{MaxSize: 100, MaxFiles: 3}, Now: func() time.Time { return clock }})
	if err := k.RotateLogs(t.Context()); !errors.Is(err, refuse) {
		t.Errorf("the runtime's refusal isn't told: %v", err)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != big {
		t.Errorf("after a refusal the log is %q, %v", text, err)
	}
	runtime.reopen = func(string) error {
		write(t, log, big, 0)
		return nil
	}
	for range 3 {
		if err := k.RotateLogs(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(time.Hour)
	}
	want := []string{"0.log", "0.log.20261121-130000.gz", "0.log.20261121-140000"}
	if diff := cmp.Diff(want, tree(t, filepath.Dir(log))); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	file, err := os.Open(filepath.Join(filepath.Dir(log), want[1]))
	if err != nil {
		t.Fatal(err)
	}
	unpack, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(unpack); err != nil || string(text) != big {
		t.Errorf("the compressed log is %q, %v", text, err)
	}
	if diff := cmp.Diff([]string{"0.log"}, tree(t, filepath.Join(dir, "default_web_p", "done"))); diff != "" {
		t.Errorf("the log of a container that has ended was touched (-want +got):\n%s", diff)
	}
}

// cgroups is a tree in memory.
type cgroups map[string]bool

// busy says that the processes of a pod are still dying.
type busy struct{ cgroups }

func (b busy) Remove(string) error { return errors.New("device or resource busy") }

func (c cgroups) Pods() (out []string, err error) {
	for uid := range c {
		out = append(out, uid)
	}
	return out, nil
}

func (c cgroups) Remove(uid string) error {
	delete(c, uid)
	return nil
}

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	volumes, err := volume.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	logs, old := filepath.Join(dir, "log"), time.Hour
	for _, uid := range []string{"here", "ending", "gone"} {
		write(t, filepath.Join(volumes.PodDir(types.UID(uid)), "etc-hosts"), "", old)
		write(t, filepath.Join(logs, "default_web_"+uid, "main", "0.log"), "", old)
	}
	write(t, filepath.Join(volumes.PodDir("here"), "containers", "main", "0"), "", old)
	write(t, filepath.Join(volumes.PodDir("here"), "containers", "main", "1"), "", old)
	write(t, filepath.Join(volumes.PodDir("here"), "containers", "main", "2"), "", 0)
	write(t, filepath.Join(logs, "default_web_here", "main", "1.log"), "", old)
	tree1 := cgroups{"here": true, "ending": true, "gone": true}
	runtime := &stub{
		fails:      errors.New("the runtime is away"),
		containers: []*runtimeapi.Container{aContainer("here", "main", 1, runtimeapi.ContainerState_CONTAINER_RUNNING), aContainer("ending", "main", 0, runtimeapi.ContainerState_CONTAINER_EXITED)},
		sandboxes:  []*runtimeapi.PodSandbox{{Labels: map[string]string{labelUID: "ending"}}},
	}
	k := New(Options{
		Runtime: runtime, Volumes: volumes, LogDir: logs, Cgroups: tree1, Now: func() time.Time { return now },
		Pods: func(context.Context) (Pods, error) { return Pods{UIDs: map[types.UID]bool{"here": true}}, nil },
	})
	before := tree(t, dir)
	if err := k.Tidy(t.Context()); err == nil {
		t.Error("that the runtime is away isn't told")
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" || len(tree1) != 3 {
		t.Errorf("something was removed without the runtime's word:\n%s", diff)
	}
	runtime.fails = nil
	k.options.Cgroups = busy{tree1}
	if err := k.Tidy(t.Context()); err == nil {
		t.Error("that a cgroup is busy isn't told")
	}
	if _, err := os.Stat(volumes.PodDir("gone")); err != nil {
		t.Errorf("the folder of a pod with processes went: %v", err)
	}
	k.options.Cgroups = tree1
	if err := k.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"log/default_web_ending/main/0.log", "log/default_web_here/main/1.log", "pods/ending/etc-hosts",
		"pods/here/containers/main/1", "pods/here/containers/main/2", "pods/here/etc-hosts",
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(cgroups{"here": true, "ending": true}, tree1); diff != "" {
		t.Errorf("cgroups (-want +got):\n%s", diff)
	}
}
