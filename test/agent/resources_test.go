// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/controllers/agent"
	"github.com/pinnace-dev/pinnace/internal/eviction"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// meter reads the pods from the machine, and what the machine has left from the test: nothing real runs out.
type meter struct {
	*agent.MachineMeter
	mu  sync.Mutex
	say eviction.Readings
}

func (m *meter) Readings(context.Context) (eviction.Readings, eviction.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.say, eviction.Host{}, nil
}

func (m *meter) set(r eviction.Readings) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.say = r
}

// guard gives the world's node limits, and eviction that listens to the test's meter.
func (w *world) guard(t *testing.T, n *agent.Node) {
	t.Helper()
	thresholds, err := eviction.Options{Hard: []string{"memory.available<100Mi"}}.Thresholds()
	if err != nil {
		t.Fatal(err)
	}
	n.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("8Gi")}
	n.Allocatable = n.Capacity
	layout := *n
	w.meter = &meter{MachineMeter: &agent.MachineMeter{Node: &layout, Runtime: w.real.CRI, DataDir: w.real.Dir}}
	n.Eviction = &agent.Eviction{Thresholds: thresholds, Transition: time.Second, Every: 200 * time.Millisecond, Meter: w.meter}
}

func compute(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}

// control reads a file of a pod's cgroup, or of a container's in it. Of version 1's name and version 2's the one is read that is there.
func control(t *testing.T, pod *pcorev1.Pod, container, one, two string) string {
	t.Helper()
	class := strings.ToLower(string(podstate.QOSClass(&pod.Spec.PodSpec)))
	if class == "guaranteed" {
		class = ""
	}
	dir := filepath.Join(cgroupRoot, class, "pod"+string(pod.UID), container)
	tree, _, _ := strings.Cut(one, ".")
	for _, file := range []string{filepath.Join("/sys/fs/cgroup", tree, dir, one), filepath.Join("/sys/fs/cgroup", dir, two)} {
		if data, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	t.Errorf("pod %s has no %s and no %s in %s", pod.Name, one, two, dir)
	return ""
}

func storyLimits(t *testing.T, w *world) {
	pod := w.pod("limits", "serve", "8080")
	pod.Spec.Containers[0].Resources = compute("500m", "64Mi")
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "second", Image: testImage, Args: []string{"serve", "8081"}, Resources: compute("250m", "32Mi")})
	whole := w.pod("whole", "serve", "8080")
	all := compute("1", "128Mi")
	whole.Spec.Resources = &all
	best := w.pod("best", "serve", "8080")
	got := w.until(t, w.create(t, pod), "ready", ready)
	other, free := w.until(t, w.create(t, whole), "ready", ready), w.until(t, w.create(t, best), "ready", ready)
	for what, has := range map[string][2]string{
		"the pod's shares":                   {control(t, got, "", "cpu.shares", "cpu.weight"), "768"},
		"the pod's quota":                    {control(t, got, "", "cpu.cfs_quota_us", "cpu.max"), "75000"},
		"the pod's memory":                   {control(t, got, "", "memory.limit_in_bytes", "memory.max"), "100663296"},
		"memory by resources of a whole pod": {control(t, other, "", "memory.limit_in_bytes", "memory.max"), "134217728"},
		"shares of best effort":              {control(t, free, "", "cpu.shares", "cpu.weight"), "2"},
	} {
		if !strings.HasPrefix(has[0], has[1]) && !v2() {
			t.Errorf("%s: %s, want %s", what, has[0], has[1])
		}
	}
	if v2() {
		if has := control(t, got, "", "", "memory.max"); has != "100663296" {
			t.Errorf("the pod's memory: %s", has)
		}
	}
	for _, p := range []*pcorev1.Pod{pod, whole, best} {
		w.delete(t, p)
		w.until(t, p, "gone", gone)
	}
}

// v2 says that this machine has one tree of cgroups.
func v2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

func (w *world) resize(t *testing.T, pod *pcorev1.Pod, to corev1.ResourceRequirements) {
	t.Helper()
	before := &pcorev1.Pod{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(pod), before); err != nil {
		t.Fatal(err)
	}
	after := before.DeepCopy()
	after.Spec.Containers[0].Resources = to
	if err := w.client.Patch(t.Context(), after, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

func storyResize(t *testing.T, w *world) {
	pod := w.pod("resize", "serve", "8080")
	pod.Spec.Containers[0].Resources = compute("500m", "64Mi")
	got := w.until(t, w.create(t, pod), "ready", ready)
	id := got.Status.ContainerStatuses[0].ContainerID
	container := strings.TrimPrefix(id, "containerd://")
	memoryIs := func(want string) func(*pcorev1.Pod) bool {
		return func(p *pcorev1.Pod) bool {
			c := p.Status.ContainerStatuses[0]
			return p.Status.ObservedGeneration == p.Generation && c.Resources != nil && c.Resources.Limits.Memory().String() == want &&
				podstate.FindCondition(p.Status.Conditions, corev1.PodResizeInProgress) == nil
		}
	}
	for _, step := range []struct{ cpu, memory, bytes, quota string }{{"1", "128Mi", "134217728", "100000"}, {"250m", "96Mi", "100663296", "25000"}} {
		w.resize(t, pod, compute(step.cpu, step.memory))
		got = w.until(t, pod, "resized to "+step.memory, memoryIs(step.memory))
		if got.Status.ContainerStatuses[0].ContainerID != id || got.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("the container was restarted")
		}
		for _, of := range []string{container, ""} {
			if has := control(t, got, of, "memory.limit_in_bytes", "memory.max"); has != step.bytes {
				t.Errorf("memory of %q: %s, want %s", of, has, step.bytes)
			}
			if has := control(t, got, of, "cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(has, step.quota) {
				t.Errorf("quota of %q: %s, want %s", of, has, step.quota)
			}
		}
	}
	// Less than it uses isn't tried: version 2 would kill for it.
	w.resize(t, pod, compute("250m", "1Mi"))
	got = w.until(t, pod, "told that it uses more", func(p *pcorev1.Pod) bool {
		c := podstate.FindCondition(p.Status.Conditions, corev1.PodResizeInProgress)
		return c != nil && c.Reason == corev1.PodReasonError
	})
	if c := podstate.FindCondition(got.Status.Conditions, corev1.PodResizeInProgress); !strings.Contains(c.Message, "below current usage") {
		t.Errorf("the condition: %+v", c)
	}
	w.resize(t, pod, compute("1", "64Mi"))
	w.until(t, pod, "resized after the error", memoryIs("64Mi"))
	w.resize(t, pod, compute("3", "64Mi"))
	w.until(t, pod, "told that the node is too small", func(p *pcorev1.Pod) bool {
		c := podstate.FindCondition(p.Status.Conditions, corev1.PodResizePending)
		return c != nil && c.Reason == corev1.PodReasonInfeasible
	})
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyEviction(t *testing.T, w *world) {
	// The one that uses most above its request goes; what each uses is the kernel's word.
	greedy, modest := w.pod("greedy", "eat", "40"), w.pod("modest", "serve", "8080")
	for _, p := range []*pcorev1.Pod{greedy, modest} {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("4Mi")}
		w.until(t, w.create(t, p), "ready", ready)
	}
	w.meter.set(eviction.Readings{eviction.MemoryAvailable: {Available: 50 << 20, Capacity: 8 << 30}})
	got := w.until(t, greedy, "evicted", func(p *pcorev1.Pod) bool {
		if p.Status.Phase == corev1.PodFailed {
			w.meter.set(nil) // its memory is back
		}
		return p.Status.Reason == podstate.ReasonEvicted
	})
	w.meter.set(nil)
	if !strings.HasPrefix(got.Status.Message, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container main was using ") {
		t.Errorf("the message: %q", got.Status.Message)
	}
	if c := podstate.FindCondition(got.Status.Conditions, corev1.DisruptionTarget); c == nil || c.Reason != corev1.PodReasonTerminationByKubelet {
		t.Errorf("the condition: %+v", c)
	}
	w.eventually(t, "what the evicted pod had on disk is given back", func() bool {
		_, err := os.Stat(w.volumes.PodDir(got.UID))
		return os.IsNotExist(err)
	})
	now := &pcorev1.Pod{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(modest), now); err != nil || now.Status.Phase != corev1.PodRunning {
		t.Errorf("the modest one: %v %v", now.Status.Phase, err)
	}
	w.delete(t, greedy)
	w.until(t, greedy, "gone", gone)
	w.delete(t, modest)
	w.until(t, modest, "gone", gone)

	limit := resource.MustParse("1Mi")
	full := w.pod("full", "do", "fill /data/file 3", "serve 8080")
	full.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	full.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	got = w.until(t, w.create(t, full), "evicted", func(p *pcorev1.Pod) bool { return p.Status.Reason == podstate.ReasonEvicted })
	if got.Status.Message != `Usage of EmptyDir volume "data" exceeds the limit "1Mi". ` {
		t.Errorf("the message: %q", got.Status.Message)
	}
	w.delete(t, full)
	w.until(t, full, "gone", gone)

	// A writable layer is measured by containerd once a minute only (internal/containerd); an emptyDir counts to the limit as well.
	written := w.pod("written", "do", "fill /data/file 3", "serve 8080")
	written.Spec.Containers[0].VolumeMounts = full.Spec.Containers[0].VolumeMounts
	written.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	written.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	got = w.until(t, w.create(t, written), "evicted", func(p *pcorev1.Pod) bool { return p.Status.Reason == podstate.ReasonEvicted })
	if got.Status.Message != "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. " {
		t.Errorf("the message: %q", got.Status.Message)
	}
	w.delete(t, written)
	w.until(t, written, "gone", gone)
}
