// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/runtime"
)

const in, notIn = corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn

func TestPlanRestartOfAll(t *testing.T) {
	notReady := runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	layered := func() *podBuilder {
		return aPod("a").Restart(corev1.RestartPolicyNever).Init("one").Sidecar("side").Container("second").RestartAll("main", in, 42).RestartAll("side", in, 42)
	}
	pod := layered().Obj()
	limited := layered().Change(func(p *pcorev1.Pod) { p.Spec.MaxRestarts = new(int32(0)) }).Obj()
	deleted := layered().Change(func(p *pcorev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: planNow} }).Obj()
	debugged := layered().Change(func(p *pcorev1.Pod) {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
	}).Obj()
	plain := aPod("a").Restart(corev1.RestartPolicyNever).Container("second").RestartAll("main", in, 42).Change(func(p *pcorev1.Pod) { p.Spec.MaxRestarts = new(int32(1)) }).Obj()
	initAsks := aPod("a").Restart(corev1.RestartPolicyNever).Sidecar("side").Init("one").RestartAll("one", in, 42).Obj()
	crashed := memory{crash: map[string]backoff{"main": {delay: 10 * time.Second, updated: planNow.Add(-5 * time.Second)}}}

	begun := func(p *pcorev1.Pod) *seenBuilder {
		return seenOf(p).Ready().Exited("c1", "one", kindInit, 0, 0, time.Minute).Running("c2", "side", kindSidecar)
	}
	over := func(p *pcorev1.Pod) *seenBuilder {
		return seenOf(p).Ready().Exited("c1", "one", kindInit, 0, 0, time.Minute).Exited("c2", "side", kindSidecar, 0, 137, time.Millisecond).
			Exited("c3", "main", kindMain, 0, 42, time.Second).Exited("c4", "second", kindMain, 0, 137, time.Millisecond)
	}
	for name, tc := range map[string]struct {
		pod  *pcorev1.Pod
		seen *observed
		mem  memory
		want brief
	}{
		"what runs is killed first, without grace": {
			pod, begun(pod).Exited("c3", "main", kindMain, 0, 42, time.Second).Running("c4", "second", kindMain).Obj(), memory{},
			brief{Stop: []string{"c2 0s", "c4 0s"}},
		},
		"what is being killed is waited for": {
			pod, begun(pod).Exited("c3", "main", kindMain, 0, 42, time.Second).Exited("c4", "second", kindMain, 0, 137, 0).Obj(), memory{stopping: map[string]bool{"c2": true}},
			brief{},
		},
		"another exit code asks for nothing": {
			pod, begun(pod).Exited("c3", "main", kindMain, 0, 1, time.Second).Running("c4", "second", kindMain).Obj(), memory{}, brief{},
		},
		"then the first init container runs again": {pod, over(pod).Obj(), memory{}, brief{Start: []string{"init one epoch 1"}}},
		"the sidecar follows": {
			pod, over(pod).Epoch(1).Exited("c5", "one", kindInit, 1, 0, 0).Obj(), memory{}, brief{Start: []string{"sidecar side epoch 1"}},
		},
		"and the main containers, also one that was done": {
			pod,
			seenOf(pod).Ready().Exited("c4", "second", kindMain, 0, 0, time.Hour).Exited("c3", "main", kindMain, 0, 42, time.Second).
				Epoch(1).Exited("c5", "one", kindInit, 1, 0, 0).Running("c6", "side", kindSidecar).Obj(),
			memory{}, brief{Start: []string{"main main epoch 1", "main second epoch 1"}},
		},
		"in the new epoch ends count as ever": {
			pod,
			seenOf(pod).Ready().Exited("c3", "main", kindMain, 0, 42, time.Hour).Epoch(1).Exited("c5", "one", kindInit, 1, 0, time.Minute).
				Running("c6", "side", kindSidecar).Exited("c7", "main", kindMain, 1, 0, time.Second).Exited("c8", "second", kindMain, 1, 3, time.Second).Obj(),
			memory{}, brief{Ending: true, Stop: []string{"c6 30s"}},
		},
		"an init container that fails for good in the new epoch ends the pod": {
			pod, over(pod).Epoch(1).Exited("c5", "one", kindInit, 1, 9, 0).Obj(), memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"a sidecar asks": {
			pod, seenOf(pod).Ready().Exited("c1", "one", kindInit, 0, 0, time.Minute).Exited("c2", "side", kindSidecar, 0, 42, time.Second).Running("c3", "main", kindMain).Obj(),
			memory{}, brief{Stop: []string{"c3 0s"}},
		},
		"a sidecar has asked, and the main containers were killed for it": {
			pod,
			seenOf(pod).Ready().Exited("c2", "side", kindSidecar, 0, 42, time.Second).Exited("c3", "main", kindMain, 0, 137, time.Millisecond).
				Exited("c4", "second", kindMain, 0, 137, time.Millisecond).Obj(),
			memory{}, brief{Start: []string{"init one epoch 1"}},
		},
		"a sidecar that asks while all main containers succeed comes too late": {
			pod,
			seenOf(pod).Ready().Exited("c2", "side", kindSidecar, 0, 42, time.Second).Exited("c3", "main", kindMain, 0, 0, time.Millisecond).
				Exited("c4", "second", kindMain, 0, 0, time.Millisecond).Obj(),
			memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"a sidecar that was stopped when the main containers were done asks in vain": {
			pod,
			seenOf(pod).Ready().Exited("c1", "one", kindInit, 0, 0, time.Minute).Exited("c2", "side", kindSidecar, 0, 42, time.Second).
				Exited("c3", "main", kindMain, 0, 1, 2*time.Second).Exited("c4", "second", kindMain, 0, 0, 2*time.Second).Obj(),
			memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"and so does one after an init container has failed the pod": {
			initAsks, seenOf(initAsks).Ready().Exited("c1", "side", kindSidecar, 0, 42, time.Second).Exited("c2", "one", kindInit, 0, 1, time.Minute).Obj(), memory{},
			brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"an init container asks": {
			initAsks, seenOf(initAsks).Ready().Running("c1", "side", kindSidecar).Exited("c2", "one", kindInit, 0, 42, time.Second).Obj(), memory{}, brief{Stop: []string{"c1 0s"}},
		},
		"who asks again and again backs off": {
			pod, over(pod).Obj(), crashed, brief{Waiting: map[string]string{"main": "CrashLoopBackOff"}, Wake: 9 * time.Second},
		},
		"an ephemeral container stays": {
			debugged, over(debugged).Running("c9", "debug", kindEphemeral).Obj(), memory{}, brief{Start: []string{"init one epoch 1"}},
		},
		"the sandbox is lost meanwhile": {
			pod, seenOf(pod).Sandbox("s0", 0, notReady).Exited("c3", "main", kindMain, 0, 42, time.Second).Exited("c4", "second", kindMain, 0, 137, 0).Obj(), memory{},
			brief{CreateSandbox: true, Attempt: 1, StopSandboxes: []string{"s0"}},
		},
		"one that was made and not started when the agent died is replaced": {
			pod, over(pod).Epoch(1).Created("c5", "one", kindInit).Obj(), memory{}, brief{Start: []string{"init one epoch 1 for c5"}},
		},
		"a deleted pod restarts nothing": {
			deleted, begun(deleted).Exited("c3", "main", kindMain, 0, 42, time.Second).Running("c4", "second", kindMain).Obj(), memory{},
			brief{Ending: true, Stop: []string{"c4 30s"}},
		},
		"restarts of all count, whatever the restart policy": {
			plain, seenOf(plain).Ready().Exited("c3", "main", kindMain, 1, 42, time.Second).Running("c4", "second", kindMain).Obj(), memory{},
			brief{Ending: true, Stop: []string{"c4 30s"}, Fail: "TooManyRestarts"},
		},
		"no restart is left for another container": {
			plain, seenOf(plain).Ready().Exited("c3", "main", kindMain, 0, 42, time.Second).Exited("c4", "second", kindMain, 1, 0, time.Minute).Obj(), memory{},
			brief{Ending: true, StopSandboxes: []string{"s0"}, Fail: "TooManyRestarts"},
		},
		"no restart is left": {
			limited, begun(limited).Exited("c3", "main", kindMain, 0, 42, time.Second).Running("c4", "second", kindMain).Obj(), memory{},
			brief{Ending: true, Stop: []string{"c4 30s"}, Fail: "TooManyRestarts"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := makePlan(situation{pod: tc.pod, seen: tc.seen, mem: &tc.mem, now: planNow})
			if diff := cmp.Diff(tc.want, briefOf(got)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// restarting is a pod of which main asks for a restart of all with 42.
func restarting() *pcorev1.Pod {
	return aPod("a").Restart(corev1.RestartPolicyNever).Init("one").Sidecar("side").Container("second").RestartAll("main", in, 42).Obj()
}

// counts are the restarts of the containers by name.
func counts(pod *pcorev1.Pod) map[string]int32 {
	out := map[string]int32{}
	for _, s := range append(append([]corev1.ContainerStatus(nil), pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...) {
		out[s.Name] = s.RestartCount
	}
	return out
}

func TestAllContainersRestart(t *testing.T) {
	r := newRig(t)
	key := r.create(restarting())
	before := r.pod(key)
	r.exit(key, "second", 0)
	r.exit(key, "main", 42)
	pod := r.pod(key)
	if diff := cmp.Diff(map[string]int32{"one": 1, "side": 1, "main": 1, "second": 1}, counts(pod)); diff != "" {
		t.Errorf("restarts (-want +got):\n%s", diff)
	}
	if pod.Status.Phase != corev1.PodRunning || !podstate.IsTrue(pod.Status.Conditions, corev1.PodReady) || pod.Status.PodIP != before.Status.PodIP {
		t.Errorf("the pod should run in the same sandbox: %+v", pod.Status)
	}
	if c := podstate.FindCondition(pod.Status.Conditions, corev1.AllContainersRestarting); c == nil || c.Status != corev1.ConditionFalse {
		t.Errorf("the restart is over: %+v", c)
	}
	for name, want := range map[string]corev1.ContainerStateTerminated{
		"main": {ExitCode: 42, Reason: "Error"}, "second": {Reason: "RestartingAllContainers"}, "one": {Reason: "RestartingAllContainers"},
		"side": {ExitCode: 137, Reason: "RestartingAllContainers"},
	} {
		s := podstate.FindStatus(append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...), name)
		if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != want.ExitCode || last.Reason != want.Reason {
			t.Errorf("the last end of %s is %+v, want %+v", name, last, want)
		}
	}

	r.exit(key, "main", 42)
	pod = r.pod(key)
	c := podstate.FindCondition(pod.Status.Conditions, corev1.AllContainersRestarting)
	if c.Status != corev1.ConditionTrue || c.Reason != "RestartAllContainersStarted" || !podstate.IsTrue(pod.Status.Conditions, corev1.PodInitialized) {
		t.Errorf("while it waits for its back-off the restart is told, and the pod counts as initialized: %+v", pod.Status.Conditions)
	}
	waiting := map[string]string{}
	for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		waiting[s.Name] = s.State.Waiting.Reason
	}
	all := podstate.ReasonRestartingAllContainers
	if diff := cmp.Diff(map[string]string{"one": all, "side": all, "main": "CrashLoopBackOff", "second": all}, waiting); diff != "" {
		t.Errorf("what waits (-want +got):\n%s", diff)
	}
	r.pass(11 * time.Second)
	r.exit(key, "main", 0)
	r.exit(key, "second", 0)
	if pod = r.pod(key); pod.Status.Phase != corev1.PodSucceeded || counts(pod)["second"] != 2 {
		t.Errorf("the pod should have succeeded in the end: %+v", pod.Status)
	}
}

// dying is a runtime whose agent dies after some more calls that change something.
type dying struct {
	runtime.Service
	left int
	die  context.CancelFunc
}

var errDied = errors.New("the agent is dead")

func (d *dying) spend() error {
	if d.left == 0 {
		d.die()
		return errDied
	}
	d.left--
	return nil
}

func (d *dying) StopContainer(ctx context.Context, id string, timeout time.Duration) error {
	if err := d.spend(); err != nil {
		return err
	}
	return d.Service.StopContainer(ctx, id, timeout)
}

func (d *dying) RemoveContainer(ctx context.Context, id string) error {
	if err := d.spend(); err != nil {
		return err
	}
	return d.Service.RemoveContainer(ctx, id)
}

func (d *dying) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	if err := d.spend(); err != nil {
		return "", err
	}
	return d.Service.CreateContainer(ctx, sandboxID, config, sandbox)
}

func (d *dying) StartContainer(ctx context.Context, id string) error {
	if err := d.spend(); err != nil {
		return err
	}
	return d.Service.StartContainer(ctx, id)
}

// TestAllContainersRestartOnceWhereverTheAgentDies lets the agent die after each call, and another one go on; the last ones twice.
func TestAllContainersRestartOnceWhereverTheAgentDies(t *testing.T) {
	const calls = 2 + 4*2 // two are stopped, four created and started
	for first := range calls + 1 {
		for second := range calls + 1 - first {
			r := newRig(t)
			key := r.create(restarting())
			r.runtime.Exit(r.containerID(key, "main"), 42)
			for _, left := range []int{first, second} {
				ctx, die := context.WithCancel(t.Context())
				r.agent.node("node-1").Runtime = &dying{Service: r.runtime, left: left, die: die}
				// What it says and plans after its death is nobody's concern.
				_, _ = r.agent.Reconcile(ctx, reconcile.Request{NamespacedName: key})
				die()
				r.restart()
			}
			r.settle(key)
			r.pass(time.Second)
			pod := r.pod(key)
			if diff := cmp.Diff(map[string]int32{"one": 1, "side": 1, "main": 1, "second": 1}, counts(pod)); diff != "" {
				t.Errorf("dead after %d and %d calls: restarts (-want +got):\n%s", first, second, diff)
			}
			if !podstate.IsTrue(pod.Status.Conditions, corev1.PodReady) || podstate.IsTrue(pod.Status.Conditions, corev1.AllContainersRestarting) {
				t.Errorf("dead after %d and %d calls: %+v", first, second, pod.Status)
			}
		}
	}
}
