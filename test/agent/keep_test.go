// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent/keep"
	"github.com/pinnace-dev/pinnace/internal/cgroup"
	"github.com/pinnace-dev/pinnace/internal/nodeserver/crilog"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

// storyDeaths: why a container died is told when it is long gone and the agent is another one.
func storyDeaths(t *testing.T, w *world) {
	writes, began := w.statusWrites.Load(), time.Now()
	pod := w.create(t, ends(w.pod("deaths", "exit", "3", "so long"), "3"))
	got := w.until(t, pod, "in CrashLoopBackOff", func(p *pcorev1.Pod) bool { return p.Status.Columns["status"] == "CrashLoopBackOff" })
	// Two starts, of which the second isn't new, and two ends.
	if n, most := w.statusWrites.Load()-writes, startWrites(time.Since(began))+1+2; n > most {
		t.Errorf("%d status writes for two ends, %d are allowed", n, most)
	}
	w.stopAgent()
	of := &runtimeapi.ContainerFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(got.UID)}}
	containers, err := w.runtime.ListContainers(t.Context(), of)
	if err != nil || len(containers) == 0 {
		t.Fatalf("the runtime holds %v, %v", containers, err)
	}
	for _, c := range containers {
		if err := w.runtime.RemoveContainer(t.Context(), c.Id); err != nil {
			t.Fatal(err)
		}
	}
	if w.real != nil {
		logs, err := filepath.Glob(filepath.Join(w.real.Dir, "logs", "*"+string(got.UID)))
		if err != nil || len(logs) != 1 || os.RemoveAll(logs[0]) != nil {
			t.Fatalf("the logs are %v, %v", logs, err)
		}
	}
	w.start()
	got = w.until(t, pod, "told of three deaths", func(p *pcorev1.Pod) bool { return len(p.Status.Deaths) == 3 })
	newest := got.Status.Deaths[0].RestartCount
	if newest > 3 {
		t.Errorf("none of the runs before the agent's restart is told, the newest is number %d", newest)
	}
	for i, d := range got.Status.Deaths {
		if d.Container != "main" || d.ExitCode != 3 || d.RestartCount != newest-int32(i) || d.Reason != "Error" || !strings.Contains(d.ContainerID, "://") {
			t.Errorf("death number %d is %+v", i, d)
		}
		if w.real != nil && (d.LastLines != "exiting with 3" || d.Message != "so long") {
			t.Errorf("death number %d left %q and %q", i, d.LastLines, d.Message)
		}
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// storyDeathsWithoutLines: a pod may keep its log to itself.
func storyDeathsWithoutLines(t *testing.T, w *world) {
	pod := w.pod("secretive", "exit", "4")
	pod.Annotations = map[string]string{pcorev1.DeathLinesAnnotation: "0"}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	got := w.until(t, w.create(t, pod), "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if d := got.Status.Deaths; len(d) != 1 || d[0].ExitCode != 4 || d[0].FinishedAt.IsZero() || d[0].LastLines != "" {
		t.Errorf("deaths: %+v", d)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// storyWhoAteTheMemory: the limit is named, and the signal.
func storyWhoAteTheMemory(t *testing.T, w *world) {
	pod := w.pod("eater", "eat", "200")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("50Mi")}
	got := w.until(t, w.create(t, pod), "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	const want = "Container main used up its memory limit of 50Mi."
	if end := got.Status.ContainerStatuses[0].State.Terminated; end == nil || end.Message != want {
		t.Errorf("the container's state is %+v", end)
	}
	if d := got.Status.Deaths; len(d) != 1 || d[0].Reason != "OOMKilled" || d[0].Signal != "SIGKILL" || d[0].Message != want {
		t.Errorf("deaths: %+v", d)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// slowly answers blobs of some size so that they take a while.
type slowly struct {
	http.Handler
	bytesPerSecond int
}

func (s slowly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Handler.ServeHTTP(slowWriter{w, s.bytesPerSecond / 10}, r)
}

type slowWriter struct {
	http.ResponseWriter
	atOnce int
}

func (w slowWriter) Write(data []byte) (n int, err error) {
	for len(data) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(data[:min(len(data), w.atOnce)])
		n, data = n+m, data[m:]
		if f, ok := w.ResponseWriter.(http.Flusher); ok && len(data) > 0 {
			f.Flush()
			time.Sleep(100 * time.Millisecond) // A slow line is what this writer is.
		}
	}
	return n, err
}

// storyPullProgress pulls an image that takes about nine seconds.
func storyPullProgress(t *testing.T, w *world) {
	fast := registry.New()
	server := httptest.NewServer(fast)
	defer server.Close()
	content, err := random.Image(4<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://")+"/slow:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, content, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = slowly{fast, 500_000}
	pod := w.pod("slow")
	pod.Spec.Containers[0].Image = ref.String()
	writes, began := w.statusWrites.Load(), time.Now()
	got := w.until(t, w.create(t, pod), "told how far the pull is", func(p *pcorev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Message != ""
	})
	waiting := got.Status.ContainerStatuses[0].State.Waiting
	t.Logf("the pod says: %s", waiting.Message)
	if !strings.HasPrefix(waiting.Message, `Pulling image "`+ref.String()+`": `) || !strings.Contains(waiting.Message, " MB of 8.4 MB after ") || waiting.Reason != "ContainerCreating" {
		t.Errorf("the pod says %+v", waiting)
	}
	// The image holds nothing that could run, so this is what is told in the end.
	w.until(t, pod, "told that the image is no good", func(p *pcorev1.Pod) bool {
		return slices.Contains([]string{"CreateContainerError", "RunContainerError"}, p.Status.Columns["status"])
	})
	// Progress is told after 5, 15 and 30 s and every 30 s then.
	if n, most := w.statusWrites.Load()-writes, 4+int64(time.Since(began)/(15*time.Second)); n > most {
		t.Errorf("%d status writes for one pull, %d are allowed", n, most)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// keeper keeps the world's node, at a time that the test says.
func (w *world) keeper(t *testing.T, o keep.Options) *keep.Keeper {
	o.Runtime, o.Volumes, o.LogDir = w.real.CRI, w.volumes, filepath.Join(w.real.Dir, "logs")
	o.Cgroups = cgroup.Leftovers{Parent: cgroupRoot}
	o.Pods = func(ctx context.Context) (keep.Pods, error) {
		var list pcorev1.PodList
		if err := w.client.List(ctx, &list); err != nil {
			return keep.Pods{}, err
		}
		out := keep.Pods{UIDs: map[types.UID]bool{}}
		for i := range list.Items {
			out.UIDs[list.Items[i].UID] = true
		}
		return out, nil
	}
	return keep.New(o)
}

// storyLogRotation rotates the log of a container that writes on, and reads it as the agent's server does.
func storyLogRotation(t *testing.T, w *world) {
	clock := time.Now()
	k := w.keeper(t, keep.Options{Logs: keep.LogPolicy{MaxSize: 1000, MaxFiles: 3}, Now: func() time.Time { return clock }})
	pod := w.create(t, w.pod("rotated", "sleep"))
	got := w.until(t, pod, "ready", ready)
	_, id, _ := strings.Cut(got.Status.ContainerStatuses[0].ContainerID, "://")
	status, err := w.runtime.ContainerStatus(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		t.Helper()
		answer, err := w.runtime.ExecSync(t.Context(), id, []string{"/testprog", "write", "/proc/1/fd/1", text}, 20*time.Second)
		if err != nil || answer.ExitCode != 0 {
			t.Fatalf("writing to the log: %v %s", err, answer.GetStderr())
		}
		w.eventually(t, "the line in the log", func() bool {
			data, err := os.ReadFile(status.LogPath)
			return err == nil && strings.Contains(string(data), text)
		})
	}
	filler := strings.Repeat("x", 1000)
	for _, text := range []string{"one", "two", "three"} {
		say(text + filler)
		if err := k.RotateLogs(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(time.Minute)
	}
	say("four")
	var out bytes.Buffer
	if err := crilog.Read(t.Context(), status.LogPath, crilog.Options{Tail: -1, Limit: -1, Stdout: &out}); err != nil || out.String() != "four\n" {
		t.Errorf("the log reads %q, %v", out.String(), err)
	}
	files, err := filepath.Glob(status.LogPath + "*")
	if err != nil || len(files) != 3 || !strings.HasSuffix(files[1], ".gz") || strings.HasSuffix(files[2], ".gz") {
		t.Errorf("files: %v, %v", files, err)
	}
	if text := volume.ReadTail(files[len(files)-1], 1<<20); !strings.Contains(text, "three") {
		t.Errorf("the newest rotated log holds %.60q", text)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// storyTidy: what pods leave that nobody knows goes, what belongs to one that runs stays.
func storyTidy(t *testing.T, w *world) {
	later := time.Now().Add(time.Hour)
	k := w.keeper(t, keep.Options{Now: func() time.Time { return later }})
	pod := w.create(t, ends(w.pod("tidy", "exit", "3"), "3"))
	// The first run is forgotten once there are three.
	got := w.until(t, pod, "restarted twice", func(p *pcorev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount == 2 && p.Status.Columns["status"] == "CrashLoopBackOff"
	})
	const lost = types.UID("0dd0c0de-lost")
	if _, err := w.volumes.Mount(lost, []volume.Volume{{Name: "m", Empty: &volume.Empty{Memory: true}}}, nil); err != nil {
		t.Fatal(err)
	}
	logs := filepath.Join(w.real.Dir, "logs")
	lostLogs := filepath.Join(logs, "default_lost_"+string(lost))
	if err := os.MkdirAll(filepath.Join(lostLogs, "main"), 0o755); err != nil {
		t.Fatal(err)
	}
	var lostGroups []string
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroupRoot + "/besteffort", "/sys/fs/cgroup/*" + cgroupRoot + "/besteffort"} {
		trees, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, tree := range trees {
			dir := filepath.Join(tree, "pod"+string(lost))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			lostGroups = append(lostGroups, dir)
		}
	}
	if len(lostGroups) == 0 {
		t.Fatal("the pods have no cgroup")
	}
	if err := k.Tidy(t.Context()); err != nil {
		t.Error(err)
	}
	for _, path := range append(lostGroups, w.volumes.PodDir(lost), lostLogs) {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(logs, "*"+string(got.UID), "main", "*"))
	var left []string
	for _, f := range files {
		left = append(left, filepath.Base(f))
	}
	if err != nil || !slices.Equal(left, []string{"1.log", "2.log"}) {
		t.Errorf("of the pod that lives the logs %v are left, %v", left, err)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// storyImageCollection: with a full disk, an image that nobody uses goes, and those of the pod that runs and of all sandboxes stay.
func storyImageCollection(t *testing.T, w *world) {
	program := filepath.Join(t.TempDir(), "idle")
	if err := os.WriteFile(program, []byte("\x7fELF is where it ends"), 0o755); err != nil {
		t.Fatal(err)
	}
	const idle = "registry.test/idle:1"
	if err := w.real.LoadProgram(t.Context(), program, idle); err != nil {
		t.Fatal(err)
	}
	if _, err := w.runtime.PullImage(t.Context(), &runtimeapi.ImageSpec{Image: idle}, nil, nil); err != nil {
		t.Fatal(err)
	}
	pod := w.create(t, w.pod("user", "sleep"))
	w.until(t, pod, "ready", ready)
	clock := time.Now()
	k := w.keeper(t, keep.Options{
		// Time goes on while the keeper works.
		Now: func() time.Time {
			clock = clock.Add(time.Millisecond)
			return clock
		},
		Disk: func(string) (int64, int64, error) { return 100 << 20, 1 << 20, nil },
	})
	there := func(ref string) bool {
		image, err := w.runtime.ImageStatus(t.Context(), &runtimeapi.ImageSpec{Image: ref})
		if err != nil {
			t.Fatal(err)
		}
		return image != nil
	}
	for _, want := range []bool{true, false} { // At first it is too new.
		if err := k.FreeImages(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := there(idle); got != want {
			t.Errorf("the idle image is there: %v, want %v", got, want)
		}
		clock = clock.Add(3 * time.Minute)
	}
	if !there(testImage) || !there("pinnace.dev/pause:1") {
		t.Error("an image in use was removed")
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}
