// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

type story = struct {
	name string
	run  func(t *testing.T, w *world)
}

// lifecycleStories run on both runtimes.
var lifecycleStories = []story{
	{"an ephemeral container is started once", storyEphemeral},
	{"an unsafe sysctl is refused", storySysctl},
	{"a container's own restart rules come first", storyRestartRules},
	{"a container's end starts all containers again", storyRestartAll},
	{"activeDeadlineSeconds ends a pod", storyDeadline},
	{"a readiness gate holds Ready back", storyGate},
}

// realLifecycleStories need processes.
var realLifecycleStories = []story{
	{"an ephemeral container sees its target's processes", storyTarget},
	{"image volumes, recursive read-only and mount propagation", storyMounts},
	{"a pod with a user namespace", storyHostUsers},
	{"environment from a file, subPathExpr", storyEnvFile},
	{"gRPC probe, sleeping hooks, stop signal", storySignals},
	{"the last words are taken from the log", storyLastWords},
	{"a probe's own grace period", storyProbeGrace},
	{"hostPath types", storyHostPath},
	{"host name, domain, hosts and DNS", storyNames},
}

// addEphemeral adds an ephemeral container, as the subresource's server does for users.
func (w *world) addEphemeral(t *testing.T, pod *pcorev1.Pod, e corev1.EphemeralContainer) {
	t.Helper()
	now := &pcorev1.Pod{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(pod), now); err != nil {
		t.Fatal(err)
	}
	changed := now.DeepCopy()
	changed.Spec.EphemeralContainers = append(changed.Spec.EphemeralContainers, e)
	if err := w.client.Patch(t.Context(), changed, client.MergeFrom(now)); err != nil {
		t.Fatal(err)
	}
}

func ephemeralOf(name, target string, args ...string) corev1.EphemeralContainer {
	return corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Image: testImage, Args: args,
			ImagePullPolicy: corev1.PullIfNotPresent, TerminationMessagePolicy: corev1.TerminationMessageReadFile, TerminationMessagePath: "/dev/termination-log",
		},
		TargetContainerName: target,
	}
}

func debugger(p *pcorev1.Pod, name string) *corev1.ContainerStatus {
	if p == nil {
		return nil
	}
	return podstate.FindStatus(p.Status.EphemeralContainerStatuses, name)
}

func storyEphemeral(t *testing.T, w *world) {
	pod := w.create(t, w.pod("debugged", "sleep"))
	w.until(t, pod, "ready", ready)
	w.addEphemeral(t, pod, ephemeralOf("debug", "", "exit", "4"))
	var id string
	if w.fake != nil {
		got := w.until(t, pod, "debugged", func(p *pcorev1.Pod) bool { d := debugger(p, "debug"); return d != nil && d.State.Running != nil })
		id = got.Status.EphemeralContainerStatuses[0].ContainerID
		w.fake.Exit(id[strings.Index(id, "://")+3:], 4)
	}
	got := w.until(t, pod, "past its debugger", func(p *pcorev1.Pod) bool {
		d := debugger(p, "debug")
		return d != nil && d.State.Terminated != nil && d.State.Terminated.ExitCode == 4
	})
	if !ready(got) || got.Status.Columns["restarts"] != "0" {
		t.Errorf("an ephemeral container's end changes the pod: %+v", got.Status)
	}
	id = got.Status.EphemeralContainerStatuses[0].ContainerID
	w.addEphemeral(t, pod, ephemeralOf("second", "", "sleep"))
	got = w.until(t, pod, "debugged again", func(p *pcorev1.Pod) bool { d := debugger(p, "second"); return d != nil && d.State.Running != nil })
	if first := debugger(got, "debug"); first.ContainerID != id || first.RestartCount != 0 || first.State.Terminated == nil {
		t.Errorf("the first one was started again: %+v", first)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	assertNothingLeft(t, w, pod)
}

func storySysctl(t *testing.T, w *world) {
	pod := w.pod("sysctl", "sleep")
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_local_port_range", Value: "20000 30000"}, {Name: "kernel.msgmax", Value: "65536"}}}
	got := w.until(t, w.create(t, pod), "refused", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if got.Status.Reason != "SysctlForbidden" || !strings.Contains(got.Status.Message, `"kernel.msgmax" not allowlisted`) {
		t.Errorf("reason %q, message %q", got.Status.Reason, got.Status.Message)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	assertNothingLeft(t, w, pod)
}

func storyRestartRules(t *testing.T, w *world) {
	never := corev1.ContainerRestartPolicyNever
	for code, restarts := range map[string]bool{"42": true, "1": false} {
		pod := ends(w.pod("rules-"+code, "exit", code), code)
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		pod.Spec.Containers[0].RestartPolicy = &never
		pod.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
			Action: corev1.ContainerRestartRuleActionRestart, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
		}}
		w.create(t, pod)
		got := w.until(t, pod, "restarted or failed", func(p *pcorev1.Pod) bool {
			return p.Status.Phase == corev1.PodFailed || len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
		})
		if got.Status.Phase == corev1.PodFailed == restarts {
			t.Errorf("after exit code %s: phase %s, %d restarts", code, got.Status.Phase, got.Status.ContainerStatuses[0].RestartCount)
		}
		w.delete(t, pod)
		w.until(t, pod, "gone", gone)
	}
}

// storyRestartAll: main ends at once, each time with the code for which all containers are to be started again; the second time they wait
// for the back-off, which an agent that restarts has forgotten.
func storyRestartAll(t *testing.T, w *world) {
	always, never := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever
	pod := ends(w.pod("restart-all", "exit", "42"), "42")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "one", Image: testImage, Args: []string{"exit", "0"}},
		{Name: "side", Image: testImage, Args: []string{"ignore"}, RestartPolicy: &always},
	}
	pod.Spec.Containers[0].RestartPolicy = &never
	pod.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}
	w.create(t, pod)
	waits := func(restarts int32) func(*pcorev1.Pod) bool {
		return func(p *pcorev1.Pod) bool {
			for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
				if s.RestartCount != restarts || s.State.Waiting == nil {
					return false
				}
			}
			return podstate.IsTrue(p.Status.Conditions, corev1.AllContainersRestarting)
		}
	}
	got := w.until(t, pod, "restarted once and waiting for the second time", waits(1))
	main, side := got.Status.ContainerStatuses[0], got.Status.InitContainerStatuses[1]
	if main.State.Waiting.Reason != "CrashLoopBackOff" || main.LastTerminationState.Terminated.ExitCode != 42 || side.State.Waiting.Reason != "RestartingAllContainers" {
		t.Errorf("main %+v, side %+v", main, side)
	}
	if got.Status.Phase != corev1.PodRunning {
		t.Errorf("phase %s", got.Status.Phase)
	}
	w.stopAgent()
	w.start()
	again := w.until(t, pod, "restarted by another agent", waits(2))
	if again.Status.PodIP != got.Status.PodIP {
		t.Errorf("the pod has another address, %s after %s", again.Status.PodIP, got.Status.PodIP)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	assertNothingLeft(t, w, pod)
}

func storyDeadline(t *testing.T, w *world) {
	pod, second := w.pod("deadline", "sleep"), int64(1)
	pod.Spec.ActiveDeadlineSeconds = &second
	got := w.until(t, w.create(t, pod), "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if got.Status.Reason != "DeadlineExceeded" || got.Status.ContainerStatuses[0].State.Terminated == nil {
		t.Errorf("reason %q, state %+v", got.Status.Reason, got.Status.ContainerStatuses[0].State)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyGate(t *testing.T, w *world) {
	pod := w.pod("gate", "sleep")
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/in-balance"}}
	got := w.until(t, w.create(t, pod), "held back by its gate", func(p *pcorev1.Pod) bool {
		c := podstate.FindCondition(p.Status.Conditions, corev1.PodReady)
		return c != nil && c.Reason == podstate.ReasonReadinessGatesNotReady
	})
	if !podstate.IsTrue(got.Status.Conditions, corev1.ContainersReady) || !podstate.IsTrue(got.Status.Conditions, corev1.PodReadyToStartContainers) {
		t.Errorf("conditions: %+v", got.Status.Conditions)
	}
	got.Status.Conditions = append(got.Status.Conditions, corev1.PodCondition{Type: "example.com/in-balance", Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	if err := w.client.Status().Update(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	got = w.until(t, pod, "ready", ready)
	if !podstate.IsTrue(got.Status.Conditions, "example.com/in-balance") {
		t.Error("the gate's condition was lost")
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyTarget(t *testing.T, w *world) {
	pod := w.create(t, w.pod("target", "serve", "8080"))
	got := w.until(t, pod, "ready", ready)
	w.addEphemeral(t, pod, ephemeralOf("debug", "main", "serve", "8081"))
	w.eventually(t, "process 1 as the debugger sees it", func() bool {
		return w.getAt(t, got, "8081", "/file/proc/1/cmdline") == "/testprog\x00serve\x008080\x00"
	})
	w.addEphemeral(t, pod, ephemeralOf("lost", "nobody", "sleep"))
	w.until(t, pod, "told that there is no such target", func(p *pcorev1.Pod) bool {
		d := debugger(p, "lost")
		return d != nil && d.State.Waiting != nil && strings.Contains(d.State.Waiting.Message, `unable to find target container "nobody"`)
	})
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	assertNothingLeft(t, w, pod)
}

// sharedDir is a folder of the host whose mounts propagate, removed at the end.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

func tmpfsBelow(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
}

// mountOptions are those that a container's /proc/self/mountinfo shows of a mount point; empty when there is none.
func mountOptions(mountinfo, point string) string {
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 5 && fields[4] == point {
			return fields[5]
		}
	}
	return ""
}

// before2 says that the runtime is a containerd before 2, and tells what is left out for it.
func (w *world) before2(t *testing.T, leftOut string) bool {
	t.Helper()
	answer, err := w.runtime.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := version.MustParseGeneric(answer.GetRuntimeVersion()).LessThan(version.MustParseGeneric("2.0"))
	if old {
		fmt.Fprintf(os.Stderr, "SKIPPED in %s: containerd %s has no %s\n", t.Name(), answer.GetRuntimeVersion(), leftOut)
	}
	return old
}

func storyMounts(t *testing.T, w *world) {
	dir := sharedDir(t)
	tmpfsBelow(t, dir, "inner")
	pod := w.pod("mounts", "serve", "8080")
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "image", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: testImage, PullPolicy: corev1.PullIfNotPresent}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}},
	}
	inner := "ro"
	if w.before2(t, "image volumes, nor recursive read-only mounts") {
		pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		inner = "rw" // IfPossible
	}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "image", MountPath: "/image", ReadOnly: true},
		{Name: "host", MountPath: "/all", ReadOnly: true, RecursiveReadOnly: new(corev1.RecursiveReadOnlyIfPossible)},
		{Name: "host", MountPath: "/outer", ReadOnly: true},
		{Name: "host", MountPath: "/follows", MountPropagation: new(corev1.MountPropagationHostToContainer)},
	}
	got := w.until(t, w.create(t, pod), "ready", ready)
	var mounts string
	w.eventually(t, "the program answers", func() bool {
		mounts = w.get(t, got, "/file/proc/self/mountinfo")
		return strings.Contains(mounts, "/image")
	})
	for point, want := range map[string]string{"/image": "ro", "/all": "ro", "/all/inner": inner, "/outer": "ro", "/outer/inner": "rw", "/follows": "rw"} {
		if options := mountOptions(mounts, point); !strings.HasPrefix(options, want) {
			t.Errorf("%s is mounted %q, want %s\n%s", point, options, want, mounts)
		}
	}
	tmpfsBelow(t, dir, "late")
	w.eventually(t, "a later mount of the host", func() bool { return mountOptions(w.get(t, got, "/file/proc/self/mountinfo"), "/follows/late") != "" })
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)

	missing := w.pod("no-image-volume", "sleep")
	missing.Spec.Volumes = []corev1.Volume{{Name: "image", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "registry.test/nothere:1", PullPolicy: corev1.PullNever}}}}
	missing.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "image", MountPath: "/image"}}
	w.until(t, w.create(t, missing), "told that the volume's image is missing", func(p *pcorev1.Pod) bool {
		return p.Status.Columns["status"] == "ErrImageNeverPull"
	})
	w.delete(t, missing)
	w.until(t, missing, "gone", gone)
}

func storyHostUsers(t *testing.T, w *world) {
	pod := w.pod("users", "serve", "8080")
	no := false
	pod.Spec.HostUsers = &no
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	mount := []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	pod.Spec.InitContainers = []corev1.Container{{Name: "fill", Image: testImage, Args: []string{"write", "/v/file", "hello"}, VolumeMounts: mount}}
	pod.Spec.Containers[0].VolumeMounts = mount
	got := w.until(t, w.create(t, pod), "ready, or told why not", func(p *pcorev1.Pod) bool {
		c := podstate.FindCondition(p.Status.Conditions, corev1.PodReadyToStartContainers)
		return ready(p) || c != nil && strings.Contains(c.Message, "hostUsers")
	})
	if !ready(got) {
		t.Log("this machine can't give pods a user namespace, and the pod says so:", podstate.FindCondition(got.Status.Conditions, corev1.PodReadyToStartContainers).Message)
	} else {
		w.eventually(t, "the program answers", func() bool { return strings.HasSuffix(w.get(t, got, "/file/v/file"), "hello\n") })
		if fields := strings.Fields(w.get(t, got, "/file/proc/self/uid_map")); len(fields) != 3 || fields[0] != "0" || fields[1] == "0" || fields[2] != "65536" {
			t.Errorf("uid_map: %v", fields)
		}
		info, err := os.Stat(filepath.Join(w.volumes.PodDir(got.UID), "volumes", "v", "file"))
		if err != nil || info.Sys() == nil {
			t.Fatal(err)
		}
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
	assertNothingLeft(t, w, pod)
}

func storyEnvFile(t *testing.T, w *world) {
	pod := w.pod("envfile", "serve", "8080")
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod.Spec.InitContainers = []corev1.Container{{Name: "fill", Image: testImage, Args: []string{"write", "/v/env", "COLOUR='dark blue'"}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}}
	c := &pod.Spec.Containers[0]
	c.Env = []corev1.EnvVar{
		{Name: "COLOUR", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "v", Path: "env", Key: "COLOUR"}}},
		{Name: "NONE", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "v", Path: "other", Key: "A", Optional: new(true)}}},
		{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/mine", SubPathExpr: "of-$(POD)"}}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.eventually(t, "the variable from the file", func() bool { return w.get(t, got, "/env/COLOUR") == "dark blue" })
	if _, err := os.Stat(filepath.Join(w.volumes.PodDir(got.UID), "volumes", "v", "of-envfile")); err != nil {
		t.Errorf("the folder of subPathExpr: %v", err)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storySignals(t *testing.T, w *world) {
	pod := w.pod("signals", "signals")
	const watched = "example.com/watched"
	pod.Finalizers = append(pod.Finalizers, watched)
	grace := int64(20)
	pod.Spec.TerminationGracePeriodSeconds = &grace
	pod.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
	c := &pod.Spec.Containers[0]
	pause := &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}
	c.Lifecycle = &corev1.Lifecycle{PostStart: pause, PreStop: pause, StopSignal: new(corev1.SIGUSR1)}
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name: "grpc", Image: testImage, Args: []string{"grpc", "9090"},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9090}}, PeriodSeconds: 1},
	})
	w.until(t, w.create(t, pod), "ready", ready)
	w.delete(t, pod)
	got := w.until(t, pod, "stopped", func(p *pcorev1.Pod) bool {
		return p.Status.ContainerStatuses[0].State.Terminated != nil && len(p.Finalizers) == 1
	})
	want := int32(unix.SIGUSR1)
	if w.before2(t, "stop signal of a container") {
		want = int32(unix.SIGTERM)
	}
	if end := got.Status.ContainerStatuses[0].State.Terminated; end.ExitCode != want {
		t.Errorf("it was stopped by signal %d", end.ExitCode)
	}
	got.Finalizers = nil
	if err := w.client.Update(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	w.until(t, pod, "gone", gone)
}

func storyLastWords(t *testing.T, w *world) {
	pod := w.pod("words", "exit", "3")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name: "well", Image: testImage, Args: []string{"exit", "0"}, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	})
	got := w.until(t, w.create(t, pod), "failed", func(p *pcorev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	for i, want := range []string{"exiting with 3\n", ""} {
		if end := got.Status.ContainerStatuses[i].State.Terminated; end == nil || end.Message != want {
			t.Errorf("container %d ended with %+v, want the message %q", i, end, want)
		}
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyProbeGrace(t *testing.T, w *world) {
	pod := w.pod("probe-grace", "ignore")
	grace, one := int64(600), int64(1)
	pod.Spec.TerminationGracePeriodSeconds = &grace
	pod.Spec.Containers[0].LivenessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/testprog", "exit", "1"}}}, PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10,
		TerminationGracePeriodSeconds: &one,
	}
	w.until(t, w.create(t, pod), "restarted within the probe's grace", func(p *pcorev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	now := &pcorev1.Pod{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(pod), now); err != nil {
		t.Fatal(err)
	}
	changed := now.DeepCopy()
	changed.Annotations = map[string]string{"pinnace.dev/deletion-grace-period-seconds": "1"}
	if err := w.client.Patch(t.Context(), changed, client.MergeFrom(now)); err != nil {
		t.Fatal(err)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}

func storyHostPath(t *testing.T, w *world) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	pod := w.pod("hostpath", "serve", "8080")
	for i, v := range []corev1.HostPathVolumeSource{
		{Path: filepath.Join(dir, "there"), Type: new(corev1.HostPathFile)},
		{Path: filepath.Join(dir, "made/folder"), Type: new(corev1.HostPathDirectoryOrCreate)},
		{Path: filepath.Join(dir, "made-file"), Type: new(corev1.HostPathFileOrCreate)},
		{Path: "/dev/null", Type: new(corev1.HostPathCharDev)},
	} {
		name := string(rune('a' + i))
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &v}})
		pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
	}
	got := w.until(t, w.create(t, pod), "ready", ready)
	w.eventually(t, "the file of the host", func() bool { return w.get(t, got, "/file/a") == "text" })
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)

	wrong := w.pod("hostpath-wrong", "sleep")
	wrong.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: new(corev1.HostPathSocket)}}}}
	wrong.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	w.until(t, w.create(t, wrong), "told what is wrong", func(p *pcorev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, "is not a socket")
	})
	w.delete(t, wrong)
	w.until(t, wrong, "gone", gone)
}

func storyNames(t *testing.T, w *world) {
	pod := w.pod("names", "serve", "8080")
	pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.SetHostnameAsFQDN = "web-0", "web", new(true)
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"one.test", "two.test"}}}
	pod.Spec.DNSPolicy = corev1.DNSNone
	pod.Spec.DNSConfig = &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.53"}, Searches: []string{"a.test", "b.test"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}},
	}
	got := w.until(t, w.create(t, pod), "ready", ready)
	domain := "web." + w.namespace + ".svc.cluster.local"
	w.eventually(t, "the full name as host name", func() bool { return w.get(t, got, "/") == "web-0."+domain+"\n" })
	hosts := w.get(t, got, "/file/etc/hosts")
	for _, want := range []string{got.Status.PodIP + "\tweb-0." + domain + "\tweb-0\n", "192.0.2.7\tone.test\ttwo.test\n"} {
		if !strings.Contains(hosts, want) {
			t.Errorf("/etc/hosts lacks %q:\n%s", want, hosts)
		}
	}
	want := "search a.test b.test\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"
	if resolver := w.get(t, got, "/file/etc/resolv.conf"); resolver != want {
		t.Errorf("/etc/resolv.conf is %q, want %q", resolver, want)
	}
	w.delete(t, pod)
	w.until(t, pod, "gone", gone)
}
