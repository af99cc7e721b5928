// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// realStories need processes.
var realStories = []struct {
	name string
	run  func(t *testing.T, w *world)
}{
	{"environment, files and their update", storyFiles},
	{"probes", storyProbes},
	{"hooks", storyHooks},
	{"security context", storySecurity},
	{"memory limit", storyMemory},
	{"limits of pods in their cgroups", storyLimits},
	{"resize", storyResize},
	{"eviction", storyEviction},
	{"subPath stays in its volume", storySubPath},
	{"a killed container is restarted", storyKilled},
	{"nothing is left of a pod on disk and in cgroups", storyLeftovers},
	{"deaths without lines", storyDeathsWithoutLines},
	{"who ate the memory", storyWhoAteTheMemory},
	{"how far a pull is", storyPullProgress},
	{"log rotation", storyLogRotation},
	{"what gone pods left is tidied", storyTidy},
	{"image collection", storyImageCollection},
	{"latency", storyLatency},
	{"twenty at once", storyTwenty},
}

func runRealStories(t *testing.T, w *world) {
	for _, story := range append(realLifecycleStories, realStories...) {
		t.Run(story.name, func(t *testing.T) { story.run(t, w) })
	}
}

func (w *world) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		t.Fatalf("not seen within 30 s: %s", what)
	}
}

func storyFiles(t *testing.T, w *world) {
	config := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "settings"}, Data: map[string]string{"colour": "blue"}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "native"}, Data: map[string][]byte{"password": []byte("open sesame")}}
	for _, o := range []interface {
		metav1.Object
	}{config, secret} {
		var err error
		if c, ok := o.(*pcorev1.ConfigMap); ok {
			err = w.client.Create(t.Context(), c)
		} else {
			err = w.client.Create(t.Context(), secret)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	pod := w.pod("files", "serve", "8080")
	pod.Labels = map[string]string{"app": "files"}
	c := &pod.Spec.Containers[0]
	c.Env = []corev1.EnvVar{
		{Name: "COLOUR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "colour"}}},
		{Name: "SENTENCE", Value: "it is $(COLOUR), not $$(COLOUR)"},
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "native"}, Key: "password"}}},
		{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
	}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/config"}, {Name: "all", MountPath: "/all"}, {Name: "empty", MountPath: "/empty"}, {Name: "memory", MountPath: "/memory"}}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
		{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "native"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
		}}}},
		{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
	}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.eventually(t, "the program answers", func() bool { return w.get(t, got, "/") == "files\n" })
	for path, want := range map[string]string{
		"/env/COLOUR": "blue", "/env/SENTENCE": "it is blue, not $(COLOUR)", "/env/PASSWORD": "open sesame", "/env/IP": got.Status.PodIP,
		"/file/config/colour": "blue", "/file/all/password": "open sesame", "/file/all/labels": `app="files"`,
	} {
		if body := w.get(t, got, path); body != want {
			t.Errorf("%s answers %q, want %q", path, body, want)
		}
	}
	if hosts := w.get(t, got, "/file/etc/hosts"); !strings.Contains(hosts, got.Status.PodIP+"\tfiles") {
		t.Errorf("/etc/hosts: %q", hosts)
	}
	config.Data["colour"] = "green"
	if err := w.client.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "the changed file", func() bool { return w.get(t, got, "/file/config/colour") == "green" })
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyProbes(t *testing.T, w *world) {
	pod := w.pod("probes", "serve", "8080")
	c := &pod.Spec.Containers[0]
	c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}
	c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1, FailureThreshold: 30}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/testprog", "cat", "/etc/hosts"}}}, PeriodSeconds: 1, TimeoutSeconds: 5}
	c.LivenessProbe = &corev1.Probe{ProbeHandler: get, PeriodSeconds: 1, FailureThreshold: 2}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.get(t, got, "/fail")
	got = w.until(t, pod, "restarted by its liveness probe", func(p *pcorev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount == 1 && ready(p)
	})
	if last := got.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil {
		t.Error("the last state is not told")
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyHooks(t *testing.T, w *world) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	pod := w.pod("hooks", "sleep")
	write := func(text string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/testprog", "write", "/out/log", text}}}
	}
	grace := int64(10)
	pod.Spec.TerminationGracePeriodSeconds = &grace
	pod.Spec.Volumes = []corev1.Volume{{Name: "out", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: new(corev1.HostPathDirectory)}}}}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "out", MountPath: "/out"}}
	c.Lifecycle = &corev1.Lifecycle{PostStart: write("postStart"), PreStop: write("preStop")}
	w.until(t, w.create(t, pod), "ready", ready)
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || string(log) != "postStart\npreStop\n" {
		t.Errorf("the hooks wrote %q, %v", log, err)
	}
}

func storySecurity(t *testing.T, w *world) {
	pod := w.pod("security", "serve", "8080")
	user, group, yes, no := int64(1234), int64(2345), true, false
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, RunAsNonRoot: &yes,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.eventually(t, "the program answers", func() bool { return w.get(t, got, "/id") == "1234:2345" })
	status := w.get(t, got, "/file/proc/self/status")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"} {
		if !strings.Contains(status, want) {
			t.Errorf("/proc/self/status lacks %q", want)
		}
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)

	root := w.pod("nonroot", "sleep")
	root.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes}
	got = w.until(t, w.create(t, root), "refused", func(p *pcorev1.Pod) bool { return p.Status.Columns["status"] == "CreateContainerConfigError" })
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "image will run as root") {
		t.Errorf("the message is %q", m)
	}
	w.delete(t, root)
	w.until(t, root, "gone", gone)
}

func storyMemory(t *testing.T, w *world) {
	pod := w.pod("memory", "eat", "200")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("50Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
	got := w.until(t, w.create(t, pod), "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	end := got.Status.ContainerStatuses[0].State.Terminated
	if end == nil || end.Reason != "OOMKilled" || end.ExitCode != 137 || got.Status.Columns["status"] != "OOMKilled" {
		t.Errorf("got %+v", end)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storySubPath(t *testing.T, w *world) {
	pod := w.pod("subpath", "serve", "8080")
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod.Spec.InitContainers = []corev1.Container{{Name: "fill", Image: testImage, Args: []string{"write", "/v/inside", "hello"}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v", SubPath: "a/b"}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/one", SubPath: "a/b/inside"}, {Name: "v", MountPath: "/all"}}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.eventually(t, "the file by its subPath", func() bool { return w.get(t, got, "/file/one") == "hello\n" })
	if body := w.get(t, got, "/file/all/a/b/inside"); body != "hello\n" {
		t.Errorf("in the whole volume the file is %q", body)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyKilled(t *testing.T, w *world) {
	pod := w.pod("killed", "serve", "8080")
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.eventually(t, "the program answers", func() bool { return w.get(t, got, "/") == "killed\n" })
	w.get(t, got, "/exit/5")
	got = w.until(t, pod, "restarted", func(p *pcorev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && ready(p) })
	if last := got.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 5 {
		t.Errorf("the last state is %+v", last)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyLeftovers(t *testing.T, w *world) {
	pod := w.pod("leftovers", "sleep")
	pod.Spec.Volumes = []corev1.Volume{{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "m", MountPath: "/m"}}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	for _, pattern := range []string{w.volumes.PodDir(got.UID), filepath.Join(w.real.Dir, "logs", "*"+string(got.UID)), "/sys/fs/cgroup/*" + cgroupRoot + "/*/pod" + string(got.UID), "/sys/fs/cgroup" + cgroupRoot + "/*/pod" + string(got.UID)} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
}

// storyLatency prints what a start takes; benchmarks judge it, not this test.
func storyLatency(t *testing.T, w *world) {
	var took []time.Duration
	for range 7 {
		pod := w.pod("latency", "sleep")
		began := time.Now()
		w.until(t, w.create(t, pod), "ready", ready)
		took = append(took, time.Since(began))
		w.delete(t, pod)
		w.until(t, pod, "gone", gone)
	}
	slices.Sort(took)
	t.Logf("create to Ready, one pod at a time: median %s of %v", took[len(took)/2], took)
}

// storyTwenty starts twenty pods at once and prints how long it took; what is judged is that none takes more writes for it.
func storyTwenty(t *testing.T, w *world) {
	const count = 20
	writes := w.statusWrites.Load()
	pods := make([]*pcorev1.Pod, count)
	for i := range pods {
		pods[i] = w.pod(fmt.Sprintf("many-%d", i), "sleep")
	}
	began := time.Now()
	for _, pod := range pods {
		w.create(t, pod)
	}
	for _, pod := range pods {
		w.until(t, pod, "ready", ready)
	}
	t.Logf("%d of %d ready after %s, with %d status writes", count, count, time.Since(began), w.statusWrites.Load()-writes)
	if n, most := w.statusWrites.Load()-writes, count*startWrites(time.Since(began)); n > most {
		t.Errorf("%d status writes for %d pods, %d are allowed", n, count, most)
	}
	began = time.Now()
	for _, pod := range pods {
		w.delete(t, pod)
	}
	for _, pod := range pods {
		w.until(t, pod, "gone", gone)
	}
	t.Logf("%d of %d gone after %s", count, count, time.Since(began))
}
