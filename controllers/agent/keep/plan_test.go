// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func anImage(id string, size uint64, tags ...string) *runtimeapi.Image {
	return &runtimeapi.Image{Id: id, Size: size, RepoTags: tags}
}

func TestExcess(t *testing.T) {
	policy := ImagePolicy{}.withDefaults()
	for _, c := range []struct {
		name string
		disk disk
		want int64
	}{
		{"half empty", disk{1000, 500}, 0},
		{"just below", disk{1000, 160}, 0},
		{"at the high threshold", disk{1000, 150}, 50},
		{"full", disk{1000, 0}, 200},
		{"more free than there is", disk{1000, 2000}, 0},
		{"no disk", disk{}, 0},
	} {
		if got := policy.excess(c.disk); got != c.want {
			t.Errorf("%s: %d bytes to free, want %d", c.name, got, c.want)
		}
	}
	if got := (ImagePolicy{High: 100, Low: 80}).excess(disk{1000, 0}); got != 0 {
		t.Errorf("switched off, %d bytes are to be freed", got)
	}
}

func TestPlanImages(t *testing.T) {
	old := now.Add(-time.Hour)
	pinned := anImage("pinned", 10)
	pinned.Pinned = true
	images := []*runtimeapi.Image{
		anImage("used", 10), anImage("new", 10), pinned, anImage("pause", 10, "registry.test/pause:3.10"),
		anImage("lately", 10), anImage("long-ago", 10), anImage("never", 10),
	}
	known := map[string]use{
		"used": {old, now.Add(-time.Second), true}, "new": {firstSeen: now.Add(-time.Minute)}, "pinned": {firstSeen: old}, "pause": {firstSeen: old},
		"lately": {old, now.Add(-time.Minute), false}, "long-ago": {old, now.Add(-30 * time.Minute), false}, "never": {firstSeen: old},
	}
	for _, c := range []struct {
		bytes, short int64
		want         []string
	}{
		{0, 0, nil}, {1, 0, []string{"never"}}, {10, 0, []string{"never"}}, {11, 0, []string{"never", "long-ago"}},
		{1000, 970, []string{"never", "long-ago", "lately"}},
	} {
		chosen, short := planImages(images, known, c.bytes, ImagePolicy{}.withDefaults(), now)
		var got []string
		for _, i := range chosen {
			got = append(got, i.Id)
		}
		if diff := cmp.Diff(c.want, got); diff != "" || short != c.short {
			t.Errorf("to free %d bytes (-want +got):\n%s%d short, want %d", c.bytes, diff, short, c.short)
		}
	}
}

// TestPlanImagesIsSafe: whatever there is, nothing goes that is in use, pinned or new, and no more than is needed.
func TestPlanImagesIsSafe(t *testing.T) {
	policy := ImagePolicy{}.withDefaults()
	rapid.Check(t, func(t *rapid.T) {
		var images []*runtimeapi.Image
		known := map[string]use{}
		used := map[string]bool{}
		for i := range rapid.IntRange(0, 12).Draw(t, "images") {
			image := anImage(fmt.Sprint(i), uint64(rapid.IntRange(0, 100).Draw(t, "size")))
			image.Pinned = rapid.Bool().Draw(t, "pinned")
			used[image.Id] = rapid.Bool().Draw(t, "used")
			if minutes := rapid.IntRange(0, 10).Draw(t, "age"); minutes > 0 {
				known[image.Id] = use{firstSeen: now.Add(-time.Duration(minutes) * time.Minute)}
			}
			images = append(images, image)
		}
		known = uses(known, images, func(i *runtimeapi.Image) bool { return used[i.Id] }, now)
		bytes := int64(rapid.IntRange(0, 500).Draw(t, "bytes"))
		later := now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "later")) * time.Millisecond)
		chosen, short := planImages(images, known, bytes, policy, later)
		var freed, last int64
		for _, i := range chosen {
			if used[i.Id] || i.Pinned || later.Sub(known[i.Id].firstSeen) < policy.MinimumAge {
				t.Fatalf("image %s mustn't go", i.Id)
			}
			freed, last = freed+int64(i.Size), int64(i.Size)
		}
		if short != max(bytes-freed, 0) || len(chosen) > 0 && freed-last >= bytes {
			t.Fatalf("to free %d, %d were freed, the last %d, and %d are said to be short", bytes, freed, last, short)
		}
	})
}

func TestNodeImages(t *testing.T) {
	big := anImage("big", 30, "c:1", "b:1", "a:1")
	big.RepoDigests = []string{"z@sha256:2", "z@sha256:1", "z@sha256:0"}
	got := nodeImages([]*runtimeapi.Image{anImage("small", 10, "s:1"), big})
	want := []corev1.ContainerImage{
		{Names: []string{"z@sha256:0", "z@sha256:1", "z@sha256:2", "a:1", "b:1"}, SizeBytes: 30},
		{Names: []string{"s:1"}, SizeBytes: 10},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var many []*runtimeapi.Image
	for i := range 70 {
		many = append(many, anImage(fmt.Sprint(i), uint64(i)))
	}
	if got := nodeImages(many); len(got) != imagesMost || got[0].SizeBytes != 69 {
		t.Errorf("%d images, the first with %d bytes", len(got), got[0].SizeBytes)
	}
}

func TestPlanRotation(t *testing.T) {
	const log, next = "0.log", "0.log.20261121-120000"
	for _, c := range []struct {
		name  string
		names []string
		most  int
		want  rotation
	}{
		{"the first time", []string{log, "1.log"}, 5, rotation{rotated: next}},
		{"the second time", []string{log, "0.log.20261121-110000"}, 5, rotation{compress: []string{"0.log.20261121-110000"}, rotated: next}},
		{"as many as may be", []string{log, "0.log.20261121-080000.gz", "0.log.20261121-090000.gz", "0.log.20261121-100000.gz", "0.log.20261121-110000"}, 5,
			rotation{remove: []string{"0.log.20261121-080000.gz"}, compress: []string{"0.log.20261121-110000"}, rotated: next}},
		{"two files only", []string{log, "0.log.20261121-110000"}, 2, rotation{remove: []string{"0.log.20261121-110000"}, rotated: next}},
		{"after a power cut", []string{log, "0.log.20261121-100000.tmp", "0.log.20261121-110000", "0.log.20261121-110000.gz"}, 5,
			rotation{remove: []string{"0.log.20261121-100000.tmp", "0.log.20261121-110000"}, rotated: next}},
	} {
		got := planRotation(log, c.names, LogPolicy{MaxFiles: c.most}.withDefaults(), now)
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(rotation{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestPlanLeftovers(t *testing.T) {
	found := remains{
		volumes: []types.UID{"here", "gone"}, cgroups: []types.UID{"gone", "here", "of-another-node", "logs-only"},
		logs: []string{"default_web-1_here", "default_web-1_gone", "default_web-2_logs-only", "lost+found", "a_b", ""},
	}
	got := planLeftovers(found, map[types.UID]bool{"here": true})
	want := remains{volumes: []types.UID{"gone"}, cgroups: []types.UID{"gone", "logs-only"}, logs: []string{"default_web-1_gone", "default_web-2_logs-only"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(remains{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPlanRunFiles(t *testing.T) {
	old := now.Add(-runFileAge)
	r := func(attempt uint32) run { return run{pod: "p", name: "main", attempt: attempt} }
	files := []runFile{{r(0), "0.log", old}, {r(0), "0.log.1.gz", old}, {r(1), "1.log", old}, {r(2), "2.log", now}}
	got := planRunFiles(files, map[run]bool{r(1): true}, now)
	if diff := cmp.Diff([]string{"0.log", "0.log.1.gz"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, want := range map[string]bool{"3.log": true, "3.log.20260102-030405.gz": true, "3": true, "x.log": false, "": false} {
		if got, ok := runOf("p", "main", name); ok != want || ok && got.attempt != 3 {
			t.Errorf("%q: %v %v", name, got, ok)
		}
	}
}
