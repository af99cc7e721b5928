// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func thresholds(t *testing.T, o Options) []Threshold {
	t.Helper()
	out, err := o.Thresholds()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOptions(t *testing.T) {
	var got []string
	for _, x := range thresholds(t, Defaults()) {
		got = append(got, fmt.Sprintf("%s<%s", x.Signal, x.Value))
	}
	want := "memory.available<100Mi nodefs.available<10% nodefs.inodesFree<5% imagefs.available<15% imagefs.inodesFree<5% allocatableMemory.available<100Mi"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("the defaults: %s", s)
	}
	soft := thresholds(t, Options{Soft: []string{"memory.available<1Gi"}, SoftGrace: []string{"memory.available=1m30s"}, Reclaim: []string{"memory.available=500Mi"}})
	if len(soft) != 1 || soft[0].Grace != 90*time.Second || soft[0].Reclaim.String() != "500Mi" {
		t.Errorf("a soft threshold: %+v", soft)
	}
	if none := thresholds(t, Options{Hard: []string{"memory.available<0%", "nodefs.available<100%"}}); len(none) != 0 {
		t.Errorf("0 %% and 100 %% mean none: %+v", none)
	}
	for what, o := range map[string]Options{
		`--eviction-hard has "memory.available=1Gi": write it like memory.available<100Mi`: {Hard: []string{"memory.available=1Gi"}},
		"unknown signal":                       {Hard: []string{"swap.available<1Gi"}},
		"twice":                                {Hard: []string{"memory.available<1Gi", "memory.available<2Gi"}},
		"follows from":                         {Hard: []string{"containerfs.available<1Gi"}},
		"percentage":                           {Hard: []string{"memory.available<101%"}},
		"without a time":                       {Soft: []string{"memory.available<1Gi"}},
		"write it like memory.available=1m30s": {SoftGrace: []string{"memory.available:1"}},
	} {
		if _, err := o.Thresholds(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v, want %q", o, err, what)
		}
	}
	capacity := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourceEphemeralStorage: resource.MustParse("100Gi")}
	reserved := Reserved(thresholds(t, Defaults()), capacity)
	if reserved.Memory().String() != "100Mi" || reserved.StorageEphemeral().String() != "10Gi" || len(reserved) != 2 {
		t.Errorf("reserved: %v", reserved)
	}
}

// memoryOf reads a node of 1000 bytes.
func memoryOf(available int64) Readings {
	return Readings{MemoryAvailable: {available, 1000}}
}

func TestLook(t *testing.T) {
	o := Options{Hard: []string{"memory.available<100"}, Soft: []string{"memory.available<200"}, SoftGrace: []string{"memory.available=1m"}, Reclaim: []string{"memory.available=50"}}
	all := thresholds(t, o)
	var m Memory
	now := start
	for _, step := range []struct {
		after      time.Duration
		available  int64
		conditions int
		acute      string
		what       string
	}{
		{0, 500, 0, "", "enough"},
		{10 * time.Second, 150, 1, "", "the soft threshold, within its grace"},
		{59 * time.Second, 150, 1, "", "still"},
		{time.Second, 150, 1, "200", "its grace is over"},
		{10 * time.Second, 220, 1, "200", "above it, but not by what is to be reclaimed"},
		{10 * time.Second, 260, 1, "", "above it by enough; the condition stays for a while"},
		{10 * time.Second, 150, 1, "", "below again: the grace begins anew"},
		{10 * time.Second, 90, 1, "100", "the hard one, at once"},
		{10 * time.Second, 500, 1, "", "enough again"},
		{289 * time.Second, 500, 1, "", "within the transition"},
		{time.Second, 500, 0, "", "after it"},
	} {
		now = now.Add(step.after)
		var v Verdict
		m, v = Look(m, all, memoryOf(step.available), 5*time.Minute, now)
		var acute []string
		for _, x := range v.Acute {
			if x.Signal == MemoryAvailable {
				acute = append(acute, x.Value.String())
			}
		}
		if got := strings.Join(acute, " "); got != step.acute || len(v.Conditions) != step.conditions {
			t.Errorf("%s: acute %q, want %q; conditions %v", step.what, got, step.acute, v.Conditions)
		}
	}
}

func TestMemoryComesFirst(t *testing.T) {
	all := thresholds(t, Options{Hard: []string{"nodefs.available<10%", "pid.available<10%", "memory.available<100"}})
	_, v := Look(Memory{}, all, Readings{NodeFSAvailable: {5, 100}, PIDAvailable: {1, 100}, MemoryAvailable: {1, 1000}}, time.Minute, start)
	if len(v.Acute) != 3 || v.Acute[0].Signal != MemoryAvailable {
		t.Errorf("acute: %+v", v.Acute)
	}
	want := []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodePIDPressure}
	if !cmp.Equal(v.Conditions, want) {
		t.Errorf("conditions: %v", v.Conditions)
	}
}

// aPod has one container that requests so much memory and disk.
func aPod(name string, priority int32, memory, disk int64) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name, pod.UID = name, types.UID(name)
	pod.Spec.Priority = &priority
	pod.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(disk, resource.BinarySI),
	}}}}
	return pod
}

func names(pods []*corev1.Pod) string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

func TestRank(t *testing.T) {
	uses := func(memory, processes, root, logs, volume int64) Usage {
		return Usage{
			Memory: memory, Processes: processes,
			Containers: []ContainerUsage{{Name: "main", Memory: memory, Root: Disk{Bytes: root, Inodes: root}, Logs: Disk{Bytes: logs}}},
			Volumes:    map[string]Disk{"data": {Bytes: volume}},
		}
	}
	pods := []*corev1.Pod{
		aPod("below", 0, 1000, 1000), aPod("important", 1000, 100, 100), aPod("above", 0, 100, 100), aPod("far-above", 0, 100, 100),
		aPod("unknown", 2000, 100, 100),
	}
	usages := Usages{
		"below": uses(900, 50, 900, 0, 0), "important": uses(5000, 1, 5000, 0, 0), "above": uses(200, 10, 0, 200, 0), "far-above": uses(300, 20, 0, 0, 300),
	}
	for what, test := range map[string]struct {
		signal Signal
		host   Host
		want   string
	}{
		"memory":              {MemoryAvailable, Host{}, "unknown far-above above important below"},
		"of the pods":         {AllocatableMemory, Host{}, "unknown far-above above important below"},
		"process IDs":         {PIDAvailable, Host{}, "below far-above above important unknown"},
		"one disk":            {NodeFSAvailable, Host{}, "unknown far-above above important below"},
		"one disk, imagefs":   {ImageFSAvailable, Host{}, "unknown far-above above important below"},
		"two disks, nodefs":   {NodeFSAvailable, Host{ImageFS: true}, "unknown far-above above below important"},
		"two disks, imagefs":  {ImageFSAvailable, Host{ImageFS: true}, "unknown important above below far-above"},
		"inodes of writables": {ImageFSInodesFree, Host{ImageFS: true}, "unknown below important above far-above"},
	} {
		if got := names(Rank(test.signal, pods, usages, test.host)); got != test.want {
			t.Errorf("%s: %s, want %s", what, got, test.want)
		}
	}
}

// TestImages: images go for the disk that they are on, and for nothing else.
func TestImages(t *testing.T) {
	one, two := Host{}, Host{ImageFS: true}
	for signal, want := range map[Signal][2]bool{
		MemoryAvailable: {false, false}, AllocatableMemory: {false, false}, PIDAvailable: {false, false},
		NodeFSAvailable: {true, false}, NodeFSInodesFree: {true, false},
		ImageFSAvailable: {true, true}, ImageFSInodesFree: {true, true},
	} {
		threshold := Threshold{Signal: signal}
		if got := [2]bool{threshold.Images(one), threshold.Images(two)}; got != want {
			t.Errorf("%s: with one disk and with two %v, want %v", signal, got, want)
		}
	}
}

func TestMessages(t *testing.T) {
	pod := aPod("a", 0, 100<<20, 0)
	usages := Usages{"a": {Memory: 200 << 20, Containers: []ContainerUsage{{Name: "main", Memory: 200 << 20}}}}
	hard := thresholds(t, Options{Hard: []string{"memory.available<100Mi"}})
	got := Message(hard[0], pod, usages, hard, Readings{MemoryAvailable: {50 << 20, 8 << 30}})
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container main was using 200Mi, request is 100Mi, has larger consumption of memory. "
	if got != want {
		t.Errorf("%s", cmp.Diff(want, got))
	}
	limit := resource.MustParse("10Mi")
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("20Mi")}
	for what, test := range map[string]struct {
		usage Usage
		host  Host
		want  string
	}{
		"nothing":        {Usage{}, Host{}, ""},
		"at the limit":   {Usage{Volumes: map[string]Disk{"data": {Bytes: 10 << 20}}}, Host{}, ""},
		"the volume":     {Usage{Volumes: map[string]Disk{"data": {Bytes: 11 << 20}}}, Host{}, `Usage of EmptyDir volume "data" exceeds the limit "10Mi". `},
		"the pod":        {Usage{Volumes: map[string]Disk{"data": {Bytes: 9 << 20}}, Containers: []ContainerUsage{{Name: "main", Root: Disk{Bytes: 12 << 20}}}}, Host{}, "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "},
		"the pod's logs": {Usage{Containers: []ContainerUsage{{Name: "main", Logs: Disk{Bytes: 21 << 20}}}}, Host{ImageFS: true}, "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "},
	} {
		if got := Local(pod, test.usage, test.host); got != test.want {
			t.Errorf("%s: %q, want %q", what, got, test.want)
		}
	}
	second := pod.Spec.Containers[0].DeepCopy()
	second.Name = "second"
	pod.Spec.Containers = append(pod.Spec.Containers, *second)
	if got := Local(pod, Usage{Containers: []ContainerUsage{{Name: "second", Logs: Disk{Bytes: 21 << 20}}}}, Host{}); got != `Container second exceeded its local ephemeral storage limit "20Mi". ` {
		t.Errorf("one container of two: %q", got)
	}
}

// TestRankIsAnOrder: the order doesn't hang on that of the input, and nobody within his requests goes before one of the same or a lower
// priority who is above them.
func TestRankIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pods []*corev1.Pod
		usages := Usages{}
		for i := range rapid.IntRange(0, 6).Draw(t, "pods") {
			pod := aPod(fmt.Sprint(i), rapid.Int32Range(0, 2).Draw(t, "priority"), rapid.Int64Range(0, 3).Draw(t, "request"), 0)
			pods = append(pods, pod)
			if rapid.Bool().Draw(t, "known") {
				usages[pod.UID] = Usage{Memory: rapid.Int64Range(0, 5).Draw(t, "usage")}
			}
		}
		signal := rapid.SampledFrom([]Signal{MemoryAvailable, PIDAvailable, NodeFSAvailable, ImageFSInodesFree}).Draw(t, "signal")
		ranked := Rank(signal, pods, usages, Host{})
		if other := Rank(signal, rapid.Permutation(pods).Draw(t, "order"), usages, Host{}); names(other) != names(ranked) {
			t.Fatalf("%s: %s and %s", signal, names(ranked), names(other))
		}
		if signal != MemoryAvailable {
			return
		}
		above := func(p *corev1.Pod) bool {
			u, known := usages[p.UID]
			return !known || u.Memory > p.Spec.Containers[0].Resources.Requests.Memory().Value()
		}
		for i := 1; i < len(ranked); i++ {
			if above(ranked[i]) && !above(ranked[i-1]) {
				t.Fatalf("%s goes before %s, who is above his requests", ranked[i-1].Name, ranked[i].Name)
			}
		}
	})
}

// TestLookIsSafe: nothing is acute that isn't below its threshold and its reclaim, and a hard threshold below is always acute.
func TestLookIsSafe(t *testing.T) {
	all := thresholds(t, Options{
		Hard: []string{"memory.available<100"}, Soft: []string{"memory.available<200"}, SoftGrace: []string{"memory.available=30s"}, Reclaim: []string{"memory.available=50"},
	})
	rapid.Check(t, func(t *rapid.T) {
		var m Memory
		now := start
		below := time.Time{}
		for range rapid.IntRange(1, 20).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "after")) * time.Second)
			available := rapid.Int64Range(0, 400).Draw(t, "available")
			var v Verdict
			m, v = Look(m, all, memoryOf(available), time.Minute, now)
			if available >= 250 {
				below = time.Time{}
			} else if below.IsZero() {
				below = now
			}
			hard := false
			for _, x := range v.Acute {
				hard = hard || x.Hard() && x.Signal == MemoryAvailable
				if available >= x.Value.Of(1000)+50 {
					t.Fatalf("%d is available, and %s acute", available, x.Value)
				}
				if !x.Hard() && now.Sub(below) < 30*time.Second {
					t.Fatalf("a soft threshold acts after %s", now.Sub(below))
				}
			}
			if available < 100 && !hard {
				t.Fatalf("%d is available, and nothing is done", available)
			}
			if available < 200 && len(v.Conditions) == 0 {
				t.Fatalf("%d is available, and no condition says so", available)
			}
		}
	})
}
