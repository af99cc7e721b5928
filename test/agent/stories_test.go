// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

// stories run on both runtimes.
var stories = []struct {
	name string
	run  func(t *testing.T, w *world)
}{
	{"a straight start is at most two status writes and nothing else", storyStraight},
	{"a container that fails is restarted and backs off", storyCrash},
	{"a container that is restarted too often fails its pod", storyMaxRestarts},
	{"restartPolicy Never ends in Succeeded or Failed", storyNever},
	{"init containers run first, sidecars stay", storyInit},
	{"a missing ConfigMap is told and its arrival seen", storyConfig},
	{"a missing image is told", storyImage},
	{"a restart of the agent adopts", storyAdopt},
	{"a pod deleted while the agent was down is stopped", storyDeletedMeanwhile},
	{"a deletion leaves nothing", storyDelete},
	{"deaths are told when containers and agent are gone", storyDeaths},
}

func TestOnFake(t *testing.T) {
	w := fakeWorld(t)
	runStories(t, w)
	runDownStories(t, w)
}

func TestOnContainerd(t *testing.T) {
	w := realWorld(t)
	runStories(t, w)
	runRealStories(t, w)
	runDownStories(t, w)
}

func runStories(t *testing.T, w *world) {
	for _, story := range append(stories, lifecycleStories...) {
		t.Run(story.name, func(t *testing.T) { story.run(t, w) })
	}
}

func ready(p *pcorev1.Pod) bool {
	return p != nil && podstate.IsTrue(p.Status.Conditions, corev1.PodReady)
}

func gone(p *pcorev1.Pod) bool { return p == nil }

// ends makes the pod's main container end on the fake runtime as its arguments make it end on a real one.
func ends(pod *pcorev1.Pod, code string) *pcorev1.Pod {
	pod.Annotations = map[string]string{fake.AnnotationExitAfter: "1ms", fake.AnnotationExitCode: code}
	return pod
}

func storyStraight(t *testing.T, w *world) {
	writes, patches, began := w.statusWrites.Load(), w.patches.Load(), time.Now()
	pod := w.create(t, w.pod("straight", "sleep"))
	got := w.until(t, pod, "ready", ready)
	if n, most := w.statusWrites.Load()-writes, startWrites(time.Since(began)); n > most {
		t.Errorf("%d status writes from bind to Ready, %d are allowed", n, most)
	}
	if n := w.patches.Load() - patches; n != 0 {
		t.Errorf("%d patches from bind to Ready, none is needed", n)
	}
	s := got.Status
	if s.PodIP == "" || s.HostIP == "" || s.StartTime == nil || s.QOSClass != corev1.PodQOSBestEffort || s.Phase != corev1.PodRunning {
		t.Errorf("the status lacks something: %+v", s)
	}
	c := s.ContainerStatuses[0]
	if !strings.Contains(c.ContainerID, "://") || c.ImageID == "" || c.Image != testImage || c.Started == nil || !*c.Started {
		t.Errorf("the container's status lacks something: %+v", c)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyCrash(t *testing.T, w *world) {
	pod := w.create(t, ends(w.pod("crash", "exit", "3", "so long"), "3"))
	got := w.until(t, pod, "in CrashLoopBackOff", func(p *pcorev1.Pod) bool { return p.Status.Columns["status"] == "CrashLoopBackOff" })
	c := got.Status.ContainerStatuses[0]
	if c.RestartCount < 1 || c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.ExitCode != 3 || got.Status.Phase != corev1.PodRunning {
		t.Errorf("got %+v", c)
	}
	if w.real != nil && c.LastTerminationState.Terminated.Message != "so long" {
		t.Errorf("the termination message is %q", c.LastTerminationState.Terminated.Message)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

// storyMaxRestarts: a pod with maxRestarts fails once a container would be restarted more often, whatever the other ones do.
func storyMaxRestarts(t *testing.T, w *world) {
	most, always := int32(1), corev1.ContainerRestartPolicyAlways
	pod := ends(w.pod("limited", "exit", "3"), "3")
	pod.Spec.MaxRestarts = &most
	if w.real != nil { // on the fake runtime every container ends alike
		pod.Spec.InitContainers = []corev1.Container{{Name: "side", Image: testImage, Args: []string{"sleep"}, RestartPolicy: &always}}
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "second", Image: testImage, Args: []string{"sleep"}})
	}
	got := w.until(t, w.create(t, pod), "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	s := got.Status
	if s.Reason != podstate.ReasonTooManyRestarts || s.Columns["status"] != "TooManyRestarts" || !strings.Contains(s.Message, "Container main was restarted once") ||
		!strings.Contains(s.Message, "exit code 3") {
		t.Errorf("reason %q, columns %v, message %q", s.Reason, s.Columns, s.Message)
	}
	for _, c := range append(s.ContainerStatuses, s.InitContainerStatuses...) {
		if c.State.Terminated == nil {
			t.Errorf("container %s isn't stopped: %+v", c.Name, c.State)
		}
	}
	if c := s.ContainerStatuses[0]; c.RestartCount != 1 {
		t.Errorf("%s was restarted %d times", c.Name, c.RestartCount)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyNever(t *testing.T, w *world) {
	for code, want := range map[string]corev1.PodPhase{"0": corev1.PodSucceeded, "7": corev1.PodFailed} {
		pod := ends(w.pod("never-"+code, "exit", code), code)
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		got := w.until(t, w.create(t, pod), string(want), func(p *pcorev1.Pod) bool { return podstate.IsTerminal(p.Status.Phase) })
		if got.Status.Phase != want {
			t.Errorf("after exit %s the phase is %s", code, got.Status.Phase)
		}
		w.delete(t, pod)
		w.until(t, pod, "gone", gone)
	}
}

func storyInit(t *testing.T, w *world) {
	always := corev1.ContainerRestartPolicyAlways
	pod := w.pod("init", "sleep")
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "one", Image: testImage, Args: []string{"exit", "0"}},
		{Name: "side", Image: testImage, Args: []string{"sleep"}, RestartPolicy: &always},
		{Name: "two", Image: testImage, Args: []string{"exit", "0"}},
	}
	got := w.until(t, w.create(t, pod), "ready", ready)
	if got.Status.Columns["ready"] != "2/2" {
		t.Errorf("columns: %v", got.Status.Columns)
	}
	one, two := got.Status.InitContainerStatuses[0].State.Terminated, got.Status.InitContainerStatuses[2].State.Terminated
	if one == nil || two == nil || two.StartedAt.Before(&one.FinishedAt) {
		t.Errorf("the init containers did not run one after the other: %+v", got.Status.InitContainerStatuses)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyConfig(t *testing.T, w *world) {
	pod := w.pod("config", "sleep")
	pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}}}}
	got := w.until(t, w.create(t, pod), "told that the ConfigMap is missing", func(p *pcorev1.Pod) bool {
		return p.Status.Columns["status"] == "CreateContainerConfigError"
	})
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, `"late" not found`) {
		t.Errorf("the message is %q", m)
	}
	late := &pcorev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "late"}, Data: map[string]string{"A": "1"}}
	if err := w.client.Create(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	w.until(t, pod, "ready", ready)
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyImage(t *testing.T, w *world) {
	pod := w.pod("image", "sleep")
	pod.Spec.Containers[0].Image = "registry.test/nothere:1"
	if w.fake != nil {
		w.fake.SetFault(pod.Spec.Containers[0].Image, fake.Fault{Absent: true, PullError: "not found"})
	}
	got := w.until(t, w.create(t, pod), "told that the image is missing", func(p *pcorev1.Pod) bool { return p.Status.Columns["status"] == "ErrImagePull" })
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "nothere:1") {
		t.Errorf("the message is %q", m)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyAdopt(t *testing.T, w *world) {
	pod := w.create(t, w.pod("adopt", "sleep"))
	before := w.until(t, pod, "ready", ready)
	w.stopAgent()
	writes, began := w.statusWrites.Load(), time.Now()
	w.start()
	other := w.create(t, w.pod("adopt-other", "sleep")) // Once this one is ready, the agent has looked at all.
	w.until(t, other, "ready", ready)
	after := w.until(t, pod, "ready", ready)
	if before.Status.ContainerStatuses[0].ContainerID != after.Status.ContainerStatuses[0].ContainerID || before.ResourceVersion != after.ResourceVersion {
		t.Errorf("the pod was not left alone: %+v", after.Status.ContainerStatuses[0])
	}
	if n, most := w.statusWrites.Load()-writes, startWrites(time.Since(began)); n > most {
		t.Errorf("%d status writes for one new pod, %d are allowed", n, most)
	}
	for _, p := range []*pcorev1.Pod{pod, other} {
		w.delete(t, p)
		w.until(t, p, "gone", gone)
	}
}

func storyDeletedMeanwhile(t *testing.T, w *world) {
	pod := w.create(t, w.pod("meanwhile", "sleep"))
	w.until(t, pod, "ready", ready)
	w.stopAgent()
	w.delete(t, pod)
	w.start()
	w.until(t, pod, "gone", gone)
	assertNothingLeft(t, w, pod)
}

func storyDelete(t *testing.T, w *world) {
	pod := w.create(t, w.pod("delete", "sleep"))
	pod = w.until(t, pod, "ready", ready)
	writes, patches, began := w.statusWrites.Load(), w.patches.Load(), time.Now()
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	most := int64(0)
	if time.Since(began) >= window {
		most = 2 // That its container has ended, and its sandbox.
	}
	if s, p := w.statusWrites.Load()-writes, w.patches.Load()-patches; s > most || p != 1 {
		t.Errorf("a deletion took %d status writes, of which %d are allowed, and %d patches", s, most, p)
	}
	assertNothingLeft(t, w, pod)
}

func assertNothingLeft(t *testing.T, w *world, pod *pcorev1.Pod) {
	t.Helper()
	of := map[string]string{"io.kubernetes.pod.uid": string(pod.UID)}
	sandboxes, err := w.runtime.ListPodSandbox(t.Context(), &runtimeapi.PodSandboxFilter{LabelSelector: of})
	if err != nil || len(sandboxes) != 0 {
		t.Errorf("sandboxes are left: %v %v", sandboxes, err)
	}
	containers, err := w.runtime.ListContainers(t.Context(), &runtimeapi.ContainerFilter{LabelSelector: of})
	if err != nil || len(containers) != 0 {
		t.Errorf("containers are left: %v %v", containers, err)
	}
}
