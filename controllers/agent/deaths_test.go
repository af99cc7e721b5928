// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

func TestLastLines(t *testing.T) {
	const log = "ut off F text\n" +
		"2026-01-02T03:04:05Z stdout F one\n" +
		"2026-01-02T03:04:06Z stdout P thr\n" +
		"2026-01-02T03:04:06Z stdout P e\n" +
		"2026-01-02T03:04:06Z stdout F e\n" +
		"2026-01-02T03:04:07Z stderr F \x1b[31mred\x1b[0m  \n"
	for _, c := range []struct {
		name        string
		lines, most int
		want        string
	}{
		{"all", 10, 1024, "one\nthree\n[31mred[0m"},
		{"two", 2, 1024, "three\n[31mred[0m"},
		{"few bytes", 2, 3, "[0m"},
		{"none", 0, 1024, ""},
	} {
		if got := lastLines(log, c.lines, c.most); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLastLinesAreBoundedText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.StringMatching(`([0-9T:Z-]{4} )?(stdout|stderr|x) [PF] [a-zä€ \t]{0,40}`)).Draw(t, "log")
		lines, most := rapid.IntRange(0, 5).Draw(t, "lines"), rapid.IntRange(1, 60).Draw(t, "most")
		got := lastLines(strings.Join(text, "\n"), lines, most)
		if len(got) > most || !utf8.ValidString(got) || got != "" && strings.Count(got, "\n")+1 > lines {
			t.Fatalf("%d lines and %d bytes were allowed, got %q", lines, most, got)
		}
	})
}

func TestDeathLinesOfAPod(t *testing.T) {
	for _, c := range []struct {
		annotation string
		node, want int
	}{{"", 0, 10}, {"", -1, 0}, {"", 4, 4}, {"0", 0, 0}, {"3", 0, 3}, {"20", 0, 10}, {"-1", 0, 0}, {"off", 0, 0}} {
		pod := aPod("a").Obj()
		if c.annotation != "" {
			pod.Annotations = map[string]string{pcorev1.DeathLinesAnnotation: c.annotation}
		}
		if got := deathLines(pod, c.node); got != c.want {
			t.Errorf("annotation %q on a node with %d: %d lines, want %d", c.annotation, c.node, got, c.want)
		}
	}
}

func TestWhichEndsAreDeaths(t *testing.T) {
	pod := aPod("a").Init("init").Sidecar("side").Obj()
	never := aPod("a").Restart(corev1.RestartPolicyNever).Obj()
	deleted := aPod("a").Obj()
	deleted.DeletionTimestamp = new(seconds(planNow.UnixNano()))
	for _, c := range []struct {
		name, container, kind string
		pod                   *pcorev1.Pod
		code                  int32
		stopped               string
		want                  bool
	}{
		{"a failure", "main", kindMain, pod, 1, "", true},
		{"success of what is to run on", "main", kindMain, pod, 0, "", true},
		{"success for good", "main", kindMain, never, 0, "", false},
		{"a failure for good", "main", kindMain, never, 1, "", true},
		{"an init container that is done", "init", kindInit, pod, 0, "", false},
		{"an init container that fails", "init", kindInit, pod, 1, "", true},
		{"a sidecar", "side", kindSidecar, pod, 0, "", true},
		{"an end with its pod", "side", kindSidecar, pod, 137, endMessage, false},
		{"a failed probe", "main", kindMain, pod, 137, "Container main failed liveness probe", true},
		{"a deleted pod", "main", kindMain, deleted, 1, "", false},
		{"a container that the pod doesn't have", "other", kindMain, pod, 1, "", false},
	} {
		seen := seenOf(c.pod).Ready().Exited("c1", c.container, c.kind, 0, c.code, time.Minute).Obj()
		mem := &memory{stopReasons: map[string]string{"c1": c.stopped}}
		if got := len(planDeaths(c.pod, seen, mem)) == 1; got != c.want {
			t.Errorf("%s: a death: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDeathsAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []pcorev1.ContainerDeath
		names := []string{"a", "b", "c", "d", "e"}
		for i := range rapid.IntRange(0, 30).Draw(t, "deaths") {
			list = append(list, pcorev1.ContainerDeath{
				Container: rapid.SampledFrom(names).Draw(t, "container"), RestartCount: int32(i),
				FinishedAt: seconds(planNow.Add(time.Duration(i) * time.Minute).UnixNano()), LastLines: strings.Repeat("x", deathBytesMost),
			})
		}
		newest := len(list) - 1
		got := boundDeaths(list, 10)
		count, bytes := map[string]int{}, 0
		for i, d := range got {
			count[d.Container]++
			bytes += len(d.LastLines)
			if i > 0 && got[i-1].FinishedAt.Before(&d.FinishedAt) {
				t.Fatal("the newest isn't first")
			}
		}
		if newest >= 0 && got[0].RestartCount != int32(newest) {
			t.Fatal("the newest is missing")
		}
		if bytes > deathBytesAll {
			t.Fatalf("%d bytes of lines", bytes)
		}
		for name, n := range count {
			if n > deathsEach {
				t.Fatalf("%d deaths of %s", n, name)
			}
		}
	})
}

// TestDeathsOutliveContainersAndAgents ends a container on a node with a disk, takes it away, and asks an agent that knows nothing.
func TestDeathsOutliveContainersAndAgents(t *testing.T) {
	dir := t.TempDir()
	volumes, err := volume.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "0.log")
	if err := os.WriteFile(log, []byte("2026-01-02T03:04:05Z stderr F no such table: users\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := aPod("a").Obj()
	seen := seenOf(pod).Ready().Exited("c1", "main", kindMain, 0, 139, time.Minute).Obj()
	seen.containers[0].LogPath, seen.containers[0].Reason = log, "Error"
	newRecord := func() *record {
		return &record{uid: pod.UID, node: &nodeState{Node: Node{Volumes: volumes, LogDir: dir}}}
	}
	want := []pcorev1.ContainerDeath{{
		Container: "main", ExitCode: 139, Signal: "SIGSEGV", Reason: "Error", FinishedAt: seconds(planNow.Add(-time.Minute).UnixNano()),
		ContainerID: "containerd://c1", LastLines: "no such table: users",
	}}
	told := func(r *record, seen *observed) []pcorev1.ContainerDeath {
		r.noteDeaths(pod, seen)
		return statusDeaths(situation{pod: pod, seen: seen, mem: &r.mem}, host{runtimeName: "containerd"})
	}
	first := newRecord()
	if diff := cmp.Diff(want, told(first, seen)); diff != "" {
		t.Errorf("at the death (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, told(first, seen)); diff != "" {
		t.Errorf("at the next look (-want +got):\n%s", diff)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, told(newRecord(), &observed{})); diff != "" {
		t.Errorf("of an agent that was restarted, when the container is gone (-want +got):\n%s", diff)
	}
	// The status is where a node without a disk finds it.
	pod.Status.Deaths = want
	bare := &record{uid: pod.UID, node: &nodeState{}}
	if diff := cmp.Diff(want, told(bare, &observed{})); diff != "" {
		t.Errorf("from the status (-want +got):\n%s", diff)
	}
	// Turned off later, the lines go, on disk as well.
	pod.Annotations = map[string]string{pcorev1.DeathLinesAnnotation: "0"}
	want[0].LastLines = ""
	if diff := cmp.Diff(want, told(first, seen)); diff != "" {
		t.Errorf("without lines (-want +got):\n%s", diff)
	}
	if text := volumes.ReadTail(pod.UID, deathsFile, 1<<20); strings.Contains(text, "table") {
		t.Errorf("on disk there is still %s", text)
	}
}

func TestOutOfMemoryNamesTheLimit(t *testing.T) {
	limited := aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	}).Obj()
	whole := aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}
	}).Obj()
	for _, c := range []struct {
		name, reason, want string
		pod                *pcorev1.Pod
		told               int64
	}{
		{"from the pod", "OOMKilled", "Container main used up its memory limit of 64Mi.", limited, 0},
		{"the runtime knows better", "OOMKilled", "Container main used up its memory limit of 32Mi.", limited, 32 << 20},
		{"the whole pod's", "OOMKilled", "Container main was killed when the pod had used up its memory limit of 1Gi.", whole, 0},
		{"none", "OOMKilled", "Container main was killed for want of memory on the node; it has no memory limit of its own.", aPod("a").Obj(), 0},
		{"another end", "Error", "", limited, 0},
	} {
		ended := seenOf(c.pod).Ready().Exited("c1", "main", kindMain, 0, 137, 0).Obj().containers[0]
		ended.Reason = c.reason
		ended.Resources = &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: c.told}}
		if got := outOfMemory(c.pod, &c.pod.Spec.Containers[0], ended); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDeathsRideOnTheWriteThatTellsTheEnd(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Obj())
	r.written()
	r.exit(key, "main", 3)
	if writes := len(r.written()); writes > 1 {
		t.Errorf("an end and its restart took %d writes", writes)
	}
	r.exit(key, "main", 4)
	r.restart()
	r.settle(key)
	var got []int32
	for _, d := range r.pod(key).Status.Deaths {
		got = append(got, d.ExitCode)
	}
	if diff := cmp.Diff([]int32{4, 3}, got); diff != "" {
		t.Errorf("exit codes (-want +got):\n%s", diff)
	}
}
