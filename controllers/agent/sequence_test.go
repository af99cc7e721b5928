// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
)

func TestStraightStartIsOneWrite(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Obj())
	pod := r.pod(key)
	if diff := cmp.Diff([]string{"PUT status"}, r.written()); diff != "" {
		t.Errorf("writes from bind to Ready (-want +got):\n%s", diff)
	}
	if pod.Status.Phase != corev1.PodRunning || !podstate.IsTrue(pod.Status.Conditions, corev1.PodReady) {
		t.Errorf("the pod is not running and ready: %+v", pod.Status)
	}
	if diff := cmp.Diff(pcorev1.Columns{"ready": "1/1", "status": "Running", "restarts": "0"}, pod.Status.Columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if pod.Status.PodIP != "10.244.0.2" || pod.Status.HostIP != "192.0.2.1" || pod.Status.ObservedGeneration != 1 || pod.Status.StartTime == nil {
		t.Errorf("addresses, generation or start time are wrong: %+v", pod.Status)
	}
	want := []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled}
	var got []corev1.PodConditionType
	for _, c := range pod.Status.Conditions {
		got = append(got, c.Type)
		if c.Status != corev1.ConditionTrue || c.ObservedGeneration != 1 || c.LastTransitionTime.IsZero() {
			t.Errorf("condition %+v should be true, of generation 1, with a time", c)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	r.settle(key)
	r.pass(2 * time.Minute)
	if writes := r.written(); len(writes) != 0 {
		t.Errorf("a pod at rest is written: %v", writes)
	}
}

func TestInitContainersRunInOrderBeforeMain(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Init("one").Sidecar("side").Init("two").Obj())
	pod := r.pod(key)
	if pod.Status.Phase != corev1.PodRunning || pod.Status.Columns["ready"] != "2/2" {
		t.Fatalf("the pod should run with its sidecar: %+v", pod.Status.Columns)
	}
	seen, err := r.agent.node("node-1").observe(t.Context(), pod.UID)
	if err != nil {
		t.Fatal(err)
	}
	order := []string{"one", "side", "two", "main"}
	for i := 1; i < len(order); i++ {
		if before, after := seen.latest(order[i-1]), seen.latest(order[i]); before.Id > after.Id {
			t.Errorf("%s was made before %s", order[i], order[i-1])
		}
	}
	if one := podstate.FindStatus(pod.Status.InitContainerStatuses, "one"); one.State.Terminated == nil || !one.Ready {
		t.Errorf("the first init container should have ended well: %+v", one)
	}
}

func TestCrashLoopBacksOffAndRecovers(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Obj())
	r.exit(key, "main", 3)
	status := r.pod(key).Status
	if got := status.ContainerStatuses[0]; got.RestartCount != 1 || got.State.Running == nil || got.LastTerminationState.Terminated.ExitCode != 3 {
		t.Fatalf("the first restart comes at once: %+v", got)
	}
	r.exit(key, "main", 3)
	status = r.pod(key).Status
	waiting := status.ContainerStatuses[0].State.Waiting
	if waiting == nil || waiting.Reason != "CrashLoopBackOff" || waiting.Message != "back-off 10s restarting failed container=main pod=a_default(uid-a)" {
		t.Fatalf("the second restart should wait: %+v", status.ContainerStatuses[0])
	}
	if status.Columns["status"] != "CrashLoopBackOff" || status.Columns["ready"] != "0/1" || status.Phase != corev1.PodRunning {
		t.Errorf("columns %v, phase %s", status.Columns, status.Phase)
	}
	r.pass(9 * time.Second)
	if r.pod(key).Status.ContainerStatuses[0].State.Running != nil {
		t.Fatal("it was started before the back-off was over")
	}
	r.pass(2 * time.Second)
	if got := r.pod(key).Status.ContainerStatuses[0]; got.State.Running == nil || got.RestartCount != 2 {
		t.Fatalf("it should run again after the back-off: %+v", got)
	}
	r.pass(21 * time.Minute)
	r.exit(key, "main", 3)
	if got := r.pod(key).Status.ContainerStatuses[0]; got.State.Running == nil {
		t.Errorf("after a long run the back-off begins anew: %+v", got)
	}
}

func TestRestartPolicyDecidesThePhase(t *testing.T) {
	for _, tc := range []struct {
		policy corev1.RestartPolicy
		code   int32
		phase  corev1.PodPhase
		column string
	}{
		{corev1.RestartPolicyNever, 0, corev1.PodSucceeded, "Completed"},
		{corev1.RestartPolicyNever, 2, corev1.PodFailed, "Error"},
		{corev1.RestartPolicyOnFailure, 0, corev1.PodSucceeded, "Completed"},
		{corev1.RestartPolicyOnFailure, 2, corev1.PodRunning, "Running"},
		{corev1.RestartPolicyAlways, 0, corev1.PodRunning, "Running"},
	} {
		t.Run(string(tc.policy)+"/"+tc.column, func(t *testing.T) {
			r := newRig(t)
			key := r.create(aPod("a").Restart(tc.policy).Obj())
			r.exit(key, "main", tc.code)
			status := r.pod(key).Status
			if status.Phase != tc.phase || status.Columns["status"] != tc.column {
				t.Errorf("phase %s, column %s; want %s, %s", status.Phase, status.Columns["status"], tc.phase, tc.column)
			}
			if podstate.IsTerminal(tc.phase) {
				sandboxes, err := r.runtime.ListPodSandbox(t.Context(), nil)
				if err != nil || len(sandboxes) != 1 || sandboxes[0].State == 0 {
					t.Errorf("the sandbox of a pod that is done should be stopped and kept: %v %v", sandboxes, err)
				}
			}
		})
	}
}

func TestTooManyRestartsFailThePod(t *testing.T) {
	r := newRig(t)
	most := int32(1)
	key := r.create(aPod("a").Container("second").Change(func(p *pcorev1.Pod) { p.Spec.MaxRestarts = &most }).Obj())
	r.exit(key, "main", 3)
	if status := r.pod(key).Status; status.ContainerStatuses[0].RestartCount != 1 || status.Phase != corev1.PodRunning {
		t.Fatalf("the first restart is allowed: %+v", status)
	}
	r.exit(key, "main", 3)
	for restart := range 2 {
		status := r.pod(key).Status
		if status.Phase != corev1.PodFailed || status.Reason != podstate.ReasonTooManyRestarts || status.Columns["status"] != "TooManyRestarts" ||
			!strings.HasPrefix(status.Message, "Container main was restarted once, and spec.maxRestarts allows no more; it ended with exit code 3") {
			t.Fatalf("phase %s, reason %q, columns %v, message %q", status.Phase, status.Reason, status.Columns, status.Message)
		}
		if end := status.ContainerStatuses[1].State.Terminated; end == nil {
			t.Errorf("the other container should be stopped: %+v", status.ContainerStatuses[1])
		}
		if restart == 0 {
			r.restart()
			r.settle(key)
			r.pass(time.Hour)
		}
	}
}

func TestSidecarsEndWithTheirPod(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Sidecar("side").Restart(corev1.RestartPolicyNever).Obj())
	r.exit(key, "main", 0)
	status := r.pod(key).Status
	if status.Phase != corev1.PodSucceeded || status.InitContainerStatuses[0].State.Terminated == nil {
		t.Errorf("the pod should have succeeded and its sidecar ended: %s %+v", status.Phase, status.InitContainerStatuses[0])
	}
}

func TestDeletionLeavesNothingAndIsOneWrite(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Sidecar("side").Obj())
	r.written()
	r.delete(key)
	if r.pod(key) != nil {
		t.Fatal("the pod's object is still there")
	}
	if diff := cmp.Diff([]string{"PATCH"}, r.written()); diff != "" {
		t.Errorf("writes of a deletion (-want +got):\n%s", diff)
	}
	assertNothingRuns(t, r)
	r.settle(key)
	if n := len(r.agent.records.byUID) + len(r.agent.records.byKey); n != 0 {
		t.Errorf("%d records are left of a pod that is gone", n)
	}
}

func TestPodWithoutTheFinalizerIsRunAndEnded(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) { p.Finalizers = nil }).Obj())
	if r.pod(key).Status.Phase != corev1.PodRunning {
		t.Fatal("a pod that was bound by hand should run before placement has claimed it")
	}
	if diff := cmp.Diff([]string{"PUT status"}, r.written()); diff != "" {
		t.Errorf("only the status is the agent's to write (-want +got):\n%s", diff)
	}
	r.delete(key)
	assertNothingRuns(t, r)
}

func TestDeletionTellsOthersHowItEnded(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) {
		p.Finalizers = append(p.Finalizers, "batch.kubernetes.io/job-tracking")
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
	}).Obj())
	r.delete(key)
	pod := r.pod(key)
	if pod == nil || len(pod.Finalizers) != 1 || !podstate.IsTerminal(pod.Status.Phase) {
		t.Fatalf("the pod should wait for the other finalizer in a final phase: %+v", pod)
	}
	assertNothingRuns(t, r)
}

func TestRestartOfTheAgentAdopts(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Obj())
	id := r.containerID(key, "main")
	r.written()
	r.restart()
	r.settle(key)
	if got := r.containerID(key, "main"); got != id || r.runtime.Count("RunPodSandbox") != 1 || r.runtime.Count("StartContainer") != 1 {
		t.Errorf("something was started twice: container %s was %s", got, id)
	}
	if writes := r.written(); len(writes) != 0 {
		t.Errorf("an adoption writes nothing, got %v", writes)
	}
}

func TestPodGoneWhileTheAgentWasDown(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Obj())
	pod := r.pod(key)
	pod.Finalizers = nil
	if err := r.client.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	r.restart()
	node := r.agent.node("node-1")
	node.relist(t.Context(), nil, func(labels map[string]string) { r.agent.changed(node, labels) })
	r.settle()
	assertNothingRuns(t, r)
}

func TestSameNameAgainEndsTheOldOne(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) { p.Finalizers = []string{Finalizer} }).Obj())
	old := r.pod(key)
	old.Finalizers = nil
	if err := r.client.Update(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	r.create(aPod("a").Change(func(p *pcorev1.Pod) { p.UID = "uid-new" }).Obj())
	sandboxes, err := r.runtime.ListPodSandbox(t.Context(), nil)
	if err != nil || len(sandboxes) != 1 || sandboxes[0].Labels[labelPodUID] != "uid-new" {
		t.Errorf("only the new pod's sandbox should be there: %v %v", sandboxes, err)
	}
}

func TestLostNodeStartsAgainWithItsCounts(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Obj())
	r.exit(key, "main", 1)
	r.runtime = fake.New(fake.Options{Now: r.clock})
	r.restart()
	r.settle(key)
	got := r.pod(key).Status.ContainerStatuses[0]
	if got.State.Running == nil || got.RestartCount != 2 {
		t.Errorf("the container should run again, counted on from 1: %+v", got)
	}
}

func TestImageFaults(t *testing.T) {
	r := newRig(t)
	r.runtime.SetFault("hello:1", fake.Fault{Absent: true, PullError: "no such image"})
	key := r.create(aPod("a").Obj())
	waiting := r.pod(key).Status.ContainerStatuses[0].State.Waiting
	if waiting == nil || waiting.Reason != "ErrImagePull" || !strings.Contains(waiting.Message, "no such image") {
		t.Fatalf("after the first try: %+v", waiting)
	}
	r.pass(11 * time.Second)
	waiting = r.pod(key).Status.ContainerStatuses[0].State.Waiting
	if waiting == nil || waiting.Reason != "ImagePullBackOff" {
		t.Fatalf("after the second try: %+v", waiting)
	}
	r.written()
	r.pass(21 * time.Second)
	if writes := r.written(); len(writes) != 0 {
		t.Errorf("a further failed try changes nothing, got %v", writes)
	}
	r.runtime.SetFault("hello:1", fake.Fault{Absent: true})
	r.pass(41 * time.Second)
	if got := r.pod(key).Status.ContainerStatuses[0]; got.State.Running == nil || got.RestartCount != 0 {
		t.Errorf("once the image is there the container should run: %+v", got)
	}
}

func TestPullNever(t *testing.T) {
	r := newRig(t)
	r.runtime.SetFault("hello:1", fake.Fault{Absent: true})
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever }).Obj())
	if waiting := r.pod(key).Status.ContainerStatuses[0].State.Waiting; waiting == nil || waiting.Reason != "ErrImageNeverPull" {
		t.Errorf("got %+v", waiting)
	}
}

func TestMissingConfigKeyAndItsArrival(t *testing.T) {
	r := newRig(t)
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "x",
		}}}}
	}).Obj())
	waiting := r.pod(key).Status.ContainerStatuses[0].State.Waiting
	if waiting == nil || waiting.Reason != "CreateContainerConfigError" || !strings.Contains(waiting.Message, `configmap "settings" not found`) {
		t.Fatalf("got %+v", waiting)
	}
	settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}, Data: map[string]string{"x": "1"}}
	if err := r.client.Create(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	r.pass(2 * time.Second)
	if r.pod(key).Status.ContainerStatuses[0].State.Running == nil {
		t.Errorf("the container should run once its ConfigMap, a native one, is there: %+v", r.pod(key).Status)
	}
}

func TestStartErrorIsToldAndBacksOff(t *testing.T) {
	r := newRig(t)
	r.runtime.SetFault("hello:1", fake.Fault{StartError: `exec: "nothere": executable file not found in $PATH`})
	key := r.create(aPod("a").Obj())
	got := r.pod(key).Status.ContainerStatuses[0]
	if got.State.Waiting == nil || got.State.Waiting.Reason != "RunContainerError" || !strings.Contains(got.State.Waiting.Message, "nothere") {
		t.Fatalf("got %+v", got)
	}
	starts := r.runtime.Count("StartContainer")
	r.pass(5 * time.Second)
	if r.runtime.Count("StartContainer") != starts {
		t.Error("it was tried again before the back-off was over")
	}
	r.runtime.SetFault("hello:1", fake.Fault{})
	r.pass(30 * time.Second)
	if got := r.pod(key).Status.ContainerStatuses[0]; got.State.Running == nil {
		t.Errorf("got %+v", got)
	}
}

func TestActiveDeadline(t *testing.T) {
	r := newRig(t)
	seconds := int64(30)
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) { p.Spec.ActiveDeadlineSeconds = &seconds }).Obj())
	r.settle(key)
	r.pass(31 * time.Second)
	status := r.pod(key).Status
	if status.Phase != corev1.PodFailed || status.Reason != "DeadlineExceeded" {
		t.Errorf("phase %s, reason %s", status.Phase, status.Reason)
	}
}

func TestSlowStartSaysContainerCreatingOnce(t *testing.T) {
	r := newRig(t)
	r.runtime.SetFault("hello:1", fake.Fault{CreateError: ""})
	pod := aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "missing"},
		}}}}
	}).Obj()
	key := r.create(pod)
	waiting := r.pod(key).Status.ContainerStatuses
	if len(waiting) != 1 || waiting[0].State.Waiting.Reason != "ContainerCreating" || !strings.Contains(waiting[0].State.Waiting.Message, `ConfigMap "missing" not found`) {
		t.Fatalf("got %+v", waiting)
	}
	if writes := r.written(); len(writes) != 1 {
		t.Errorf("writes: %v", writes)
	}
}

func assertNothingRuns(t *testing.T, r *rig) {
	t.Helper()
	sandboxes, err := r.runtime.ListPodSandbox(t.Context(), nil)
	if err != nil || len(sandboxes) != 0 {
		t.Errorf("sandboxes are left: %v %v", sandboxes, err)
	}
	containers, err := r.runtime.ListContainers(t.Context(), nil)
	if err != nil || len(containers) != 0 {
		t.Errorf("containers are left: %v %v", containers, err)
	}
}
