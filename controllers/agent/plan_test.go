// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

var planNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world builds what the runtime is seen to hold.
type seenBuilder struct {
	pod   *pcorev1.Pod
	seen  observed
	epoch int32
}

func seenOf(pod *pcorev1.Pod) *seenBuilder { return &seenBuilder{pod: pod} }

func (b *seenBuilder) Sandbox(id string, attempt uint32, state runtimeapi.PodSandboxState) *seenBuilder {
	s := &runtimeapi.PodSandboxStatus{Id: id, State: state, Metadata: &runtimeapi.PodSandboxMetadata{Attempt: attempt}, Network: &runtimeapi.PodSandboxNetworkStatus{}}
	if state == runtimeapi.PodSandboxState_SANDBOX_READY {
		s.Network.Ip = "10.0.0.2"
	}
	b.seen.sandboxes = append(b.seen.sandboxes, s)
	return b
}

func (b *seenBuilder) Ready() *seenBuilder {
	return b.Sandbox("s0", 0, runtimeapi.PodSandboxState_SANDBOX_READY)
}

// Epoch is that of the containers to come, each of which was restarted that often.
func (b *seenBuilder) Epoch(n int32) *seenBuilder {
	b.epoch = n
	return b
}

func (b *seenBuilder) container(id, name, kind string, restarts int32) *container {
	spec := findContainer(&b.pod.Spec.PodSpec, name)
	if spec == nil {
		spec = &corev1.Container{Name: name}
	}
	c := &container{sandboxID: b.seen.sandboxes[len(b.seen.sandboxes)-1].Id, ContainerStatus: &runtimeapi.ContainerStatus{
		Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: uint32(restarts)}, CreatedAt: int64(restarts) + 1,
		Annotations: containerAnnotations(b.pod, startStep{container: spec, kind: kind, restartCount: restarts, epoch: b.epoch}),
	}}
	b.seen.containers = append(b.seen.containers, c)
	return c
}

func (b *seenBuilder) Running(id, name, kind string) *seenBuilder {
	b.container(id, name, kind, b.epoch).State = runtimeapi.ContainerState_CONTAINER_RUNNING
	return b
}

func (b *seenBuilder) Created(id, name, kind string) *seenBuilder {
	b.container(id, name, kind, b.epoch).State = runtimeapi.ContainerState_CONTAINER_CREATED
	return b
}

func (b *seenBuilder) Exited(id, name, kind string, restarts, code int32, ago time.Duration) *seenBuilder {
	c := b.container(id, name, kind, restarts)
	c.State, c.ExitCode, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, planNow.Add(-ago).UnixNano()
	return b
}

func (b *seenBuilder) Obj() *observed {
	b.seen.sort()
	return &b.seen
}

// brief is a plan in the words of a test.
type brief struct {
	Stop, Start, StopSandboxes, RemoveSandboxes, RemoveContainers []string
	Waiting                                                       map[string]string
	CreateSandbox                                                 bool
	Attempt                                                       uint32
	Wake                                                          time.Duration
	Ending, Gone                                                  bool
	Fail                                                          string
}

func briefOf(p plan) brief {
	b := brief{
		StopSandboxes: p.stopSandboxes, RemoveSandboxes: p.removeSandboxes, RemoveContainers: p.removeContainers,
		CreateSandbox: p.createSandbox, Attempt: p.attempt, Ending: p.ending, Gone: p.gone,
	}
	for _, s := range p.stop {
		b.Stop = append(b.Stop, s.container.Id+" "+s.grace.String())
	}
	for _, s := range p.start {
		text := s.kind + " " + s.container.Name
		if s.epoch > 0 {
			text += fmt.Sprintf(" epoch %d", s.epoch)
		}
		if s.replaces != "" {
			text += " for " + s.replaces
		}
		b.Start = append(b.Start, text)
	}
	for name, why := range p.waiting {
		if b.Waiting == nil {
			b.Waiting = map[string]string{}
		}
		b.Waiting[name] = why.reason
	}
	if !p.wake.IsZero() {
		b.Wake = p.wake.Sub(planNow)
	}
	if p.fail != nil {
		b.Fail = p.fail.reason
	}
	return b
}

func TestMakePlan(t *testing.T) {
	ready, notReady := runtimeapi.PodSandboxState_SANDBOX_READY, runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	plain := aPod("a").Container("second").Obj()
	layered := aPod("a").Init("one").Sidecar("side").Init("two").Obj()
	never := aPod("a").Restart(corev1.RestartPolicyNever).Obj()
	deleted := aPod("a").Sidecar("s1").Sidecar("s2").Change(func(p *pcorev1.Pod) {
		p.DeletionTimestamp = &metav1.Time{Time: planNow}
		zero := int64(0)
		p.DeletionGracePeriodSeconds = &zero // What the API server writes for every custom resource.
	}).Obj()
	changed := aPod("a").Change(func(p *pcorev1.Pod) { p.Spec.Containers[0].Image = "hello:2" }).Obj()
	probed := aPod("a").Change(func(p *pcorev1.Pod) {
		grace := int64(3)
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{TerminationGracePeriodSeconds: &grace}
	}).Obj()
	failed := aPod("a").Change(func(p *pcorev1.Pod) { p.Status.Phase = corev1.PodFailed }).Obj()
	dead := aPod("a").Change(func(p *pcorev1.Pod) {
		seconds := int64(60)
		p.Spec.ActiveDeadlineSeconds = &seconds
		p.Status.StartTime = &metav1.Time{Time: planNow.Add(-time.Minute)}
	}).Obj()
	timed := dead.DeepCopy()
	timed.Status.StartTime = nil

	restarts := func(most int32) func(*pcorev1.Pod) { return func(p *pcorev1.Pod) { p.Spec.MaxRestarts = &most } }
	limited := aPod("a").Container("second").Change(restarts(2)).Obj()
	limitedInit := aPod("a").Init("one").Sidecar("side").Change(restarts(2)).Obj()
	limitedNever := aPod("a").Restart(corev1.RestartPolicyNever).Change(restarts(0)).Obj()
	limitedDeleted := aPod("a").Change(restarts(0)).Change(func(p *pcorev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: planNow} }).Obj()
	forgotten := aPod("a").Change(restarts(2)).Change(func(p *pcorev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", RestartCount: 2, ContainerID: "fake://c1"}}
	}).Obj()

	for name, tc := range map[string]struct {
		pod  *pcorev1.Pod
		seen *observed
		mem  memory
		want brief
	}{
		"nothing there: a sandbox": {plain, seenOf(plain).Obj(), memory{}, brief{CreateSandbox: true}},
		"a sandbox that failed waits": {
			plain, seenOf(plain).Obj(), memory{sandboxFailed: startFailure{retryAt: planNow.Add(time.Second)}}, brief{Wake: time.Second},
		},
		"a sandbox: all main containers": {plain, seenOf(plain).Ready().Obj(), memory{}, brief{Start: []string{"main main", "main second"}}},
		"what runs is left alone": {
			plain, seenOf(plain).Ready().Running("c1", "main", kindMain).Running("c2", "second", kindMain).Obj(), memory{}, brief{},
		},
		"created and never started is replaced": {
			plain, seenOf(plain).Ready().Created("c1", "main", kindMain).Running("c2", "second", kindMain).Obj(), memory{}, brief{Start: []string{"main main for c1"}},
		},
		"created and never started in a sandbox that died": {
			plain, seenOf(plain).Sandbox("s0", 0, notReady).Created("c1", "main", kindMain).Sandbox("s1", 1, ready).Running("c2", "second", kindMain).Obj(), memory{},
			brief{Start: []string{"main main for c1"}},
		},
		"first init container first": {layered, seenOf(layered).Ready().Obj(), memory{}, brief{Start: []string{"init one"}}},
		"a running init container is waited for": {
			layered, seenOf(layered).Ready().Running("c1", "one", kindInit).Obj(), memory{}, brief{},
		},
		"a failed init container backs off": {
			layered,
			seenOf(layered).Ready().Exited("c1", "one", kindInit, 0, 1, time.Second).Obj(),
			memory{crash: map[string]backoff{"one": {delay: 10 * time.Second, updated: planNow.Add(-5 * time.Second)}}},
			brief{Waiting: map[string]string{"one": "CrashLoopBackOff"}, Wake: 9 * time.Second},
		},
		"the sidecar after it": {
			layered, seenOf(layered).Ready().Exited("c1", "one", kindInit, 0, 0, time.Second).Obj(), memory{}, brief{Start: []string{"sidecar side"}},
		},
		"the next init container beside the sidecar": {
			layered, seenOf(layered).Ready().Exited("c1", "one", kindInit, 0, 0, time.Second).Running("c2", "side", kindSidecar).Obj(), memory{},
			brief{Start: []string{"init two"}},
		},
		"main at last; the sidecar that ended comes back": {
			layered,
			seenOf(layered).Ready().Exited("c1", "one", kindInit, 0, 0, time.Minute).Exited("c2", "side", kindSidecar, 0, 1, time.Second).
				Exited("c3", "two", kindInit, 0, 0, time.Second).Obj(),
			memory{}, brief{Start: []string{"sidecar side", "main main"}},
		},
		"an init container that fails for good ends the pod": {
			aPod("a").Init("one").Restart(corev1.RestartPolicyNever).Obj(),
			seenOf(never).Ready().Exited("c1", "one", kindInit, 0, 1, time.Second).Obj(), memory{},
			brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"done: the sandbox is stopped and kept": {
			never, seenOf(never).Ready().Exited("c1", "main", kindMain, 0, 0, time.Second).Obj(), memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"done and stopped: nothing": {
			never, seenOf(never).Sandbox("s0", 0, notReady).Exited("c1", "main", kindMain, 0, 0, time.Second).Obj(), memory{},
			brief{Ending: true, Gone: true},
		},
		"a lost sandbox is made anew with the next attempt": {
			plain, seenOf(plain).Sandbox("s0", 0, notReady).Exited("c1", "main", kindMain, 0, 137, time.Second).Obj(), memory{},
			brief{CreateSandbox: true, Attempt: 1, StopSandboxes: []string{"s0"}},
		},
		"two ready sandboxes: what runs is stopped first": {
			plain, seenOf(plain).Ready().Running("c1", "main", kindMain).Sandbox("s1", 1, ready).Obj(), memory{}, brief{Stop: []string{"c1 30s"}},
		},
		"an old sandbox without containers is removed": {
			plain,
			seenOf(plain).Sandbox("s0", 0, notReady).Sandbox("s1", 1, ready).Running("c1", "main", kindMain).Running("c2", "second", kindMain).Obj(), memory{},
			brief{RemoveSandboxes: []string{"s0"}},
		},
		"of dead containers the two newest are kept": {
			aPod("a").Obj(),
			seenOf(never).Ready().Exited("c0", "main", kindMain, 0, 1, time.Hour).Exited("c1", "main", kindMain, 1, 1, time.Minute).
				Exited("c2", "main", kindMain, 2, 1, time.Second).Obj(),
			memory{crash: map[string]backoff{"main": {delay: 20 * time.Second, updated: planNow.Add(-time.Minute)}}},
			brief{RemoveContainers: []string{"c0"}, Waiting: map[string]string{"main": "CrashLoopBackOff"}, Wake: 19 * time.Second},
		},
		"a changed image restarts": {
			changed, seenOf(aPod("a").Obj()).Ready().Running("c1", "main", kindMain).Obj(), memory{}, brief{Stop: []string{"c1 30s"}},
		},
		"a failed liveness probe kills with the probe's grace": {
			probed, seenOf(probed).Ready().Running("c1", "main", kindMain).Obj(),
			memory{probed: map[string]probeResults{"c1": {started: true, livenessFailed: true}}}, brief{Stop: []string{"c1 3s"}},
		},
		"what is being stopped is not stopped again": {
			probed, seenOf(probed).Ready().Running("c1", "main", kindMain).Obj(),
			memory{probed: map[string]probeResults{"c1": {livenessFailed: true}}, stopping: map[string]bool{"c1": true}}, brief{},
		},
		"a failed postStart hook kills": {
			never, seenOf(never).Ready().Running("c1", "main", kindMain).Obj(),
			memory{hooks: map[string]hookState{"c1": {failed: "no"}}}, brief{Stop: []string{"c1 30s"}},
		},
		"deleted: main first": {
			deleted, seenOf(deleted).Ready().Running("c1", "s1", kindSidecar).Running("c2", "s2", kindSidecar).Running("c3", "main", kindMain).Obj(),
			memory{}, brief{Ending: true, Stop: []string{"c3 30s"}},
		},
		"deleted: then the last sidecar, with what is left of the grace": {
			deleted, seenOf(deleted).Ready().Running("c1", "s1", kindSidecar).Running("c2", "s2", kindSidecar).Obj(),
			memory{endingSince: planNow.Add(-25 * time.Second)}, brief{Ending: true, Stop: []string{"c2 5s"}},
		},
		"deleted: then the first, with the least grace": {
			deleted, seenOf(deleted).Ready().Running("c1", "s1", kindSidecar).Obj(),
			memory{endingSince: planNow.Add(-time.Hour)}, brief{Ending: true, Stop: []string{"c1 2s"}},
		},
		"deleted: then the sandbox": {
			deleted, seenOf(deleted).Ready().Obj(), memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}, RemoveSandboxes: []string{"s0"}},
		},
		"deleted and gone":             {deleted, seenOf(deleted).Obj(), memory{}, brief{Ending: true, Gone: true}},
		"a final phase starts nothing": {failed, seenOf(failed).Obj(), memory{}, brief{Ending: true, Gone: true}},
		"past its deadline": {
			dead, seenOf(dead).Ready().Running("c1", "main", kindMain).Obj(), memory{}, brief{Ending: true, Stop: []string{"c1 30s"}, Fail: "DeadlineExceeded"},
		},
		"its deadline is known before its start has been told": {
			timed, seenOf(timed).Ready().Running("c1", "main", kindMain).Obj(), memory{}, brief{Wake: time.Minute},
		},
		"restarted too often: the others are stopped": {
			limited, seenOf(limited).Ready().Exited("c1", "main", kindMain, 2, 1, time.Second).Running("c2", "second", kindMain).Obj(), memory{},
			brief{Ending: true, Stop: []string{"c2 30s"}, Fail: "TooManyRestarts"},
		},
		"restarted as often as it may be": {
			limited, seenOf(limited).Ready().Exited("c1", "main", kindMain, 1, 1, time.Hour).Running("c2", "second", kindMain).Obj(), memory{},
			brief{Start: []string{"main main"}},
		},
		"a limit of restarts that isn't reached by what runs": {
			limited, seenOf(limited).Ready().Exited("c0", "main", kindMain, 1, 1, time.Hour).Running("c2", "second", kindMain).Created("c1", "main", kindMain).Obj(), memory{},
			brief{Start: []string{"main main"}},
		},
		"an init container restarted too often": {
			limitedInit, seenOf(limitedInit).Ready().Exited("c1", "one", kindInit, 2, 1, time.Second).Obj(), memory{},
			brief{Ending: true, StopSandboxes: []string{"s0"}, Fail: "TooManyRestarts"},
		},
		"an init container that is done counts no more": {
			limitedInit, seenOf(limitedInit).Ready().Exited("c1", "one", kindInit, 2, 0, time.Second).Running("c2", "side", kindSidecar).Running("c3", "main", kindMain).Obj(),
			memory{}, brief{},
		},
		"a sidecar restarted too often": {
			limitedInit,
			seenOf(limitedInit).Ready().Exited("c1", "one", kindInit, 0, 0, time.Second).Exited("c2", "side", kindSidecar, 2, 0, time.Second).Running("c3", "main", kindMain).Obj(),
			memory{}, brief{Ending: true, Stop: []string{"c3 30s"}, Fail: "TooManyRestarts"},
		},
		"no restart is left for a new sandbox": {
			limited, seenOf(limited).Sandbox("s0", 0, notReady).Exited("c1", "main", kindMain, 2, 1, time.Second).Obj(), memory{},
			brief{Ending: true, Gone: true, Fail: "TooManyRestarts"},
		},
		"no restart is left, and the runtime knows nothing": {
			forgotten, seenOf(forgotten).Ready().Obj(), memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}, Fail: "TooManyRestarts"},
		},
		"a limit of restarts means nothing to Never": {
			limitedNever, seenOf(limitedNever).Ready().Exited("c1", "main", kindMain, 0, 1, time.Second).Obj(), memory{}, brief{Ending: true, StopSandboxes: []string{"s0"}},
		},
		"a deleted pod doesn't fail by its end": {
			limitedDeleted, seenOf(limitedDeleted).Ready().Exited("c1", "main", kindMain, 0, 137, time.Second).Obj(), memory{},
			brief{Ending: true, StopSandboxes: []string{"s0"}, RemoveSandboxes: []string{"s0"}},
		},
		"a pull that runs is waited for": {
			never, seenOf(never).Ready().Obj(), memory{failed: map[string]startFailure{"main": {}}}, brief{Waiting: map[string]string{"main": ""}},
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

func TestBackoff(t *testing.T) {
	var b backoff
	var delays []time.Duration
	now := planNow
	for range 8 {
		if until := b.until(now); until.After(now.Add(backoffMost)) {
			t.Fatalf("it waits longer than the most: %s", until.Sub(now))
		}
		now = b.until(now)
		b = b.next(now, now)
		delays = append(delays, b.delay/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 300, 300, 300}, delays); diff != "" {
		t.Errorf("delays in seconds (-want +got):\n%s", diff)
	}
	long := now.Add(backoffForget + time.Second)
	if until := b.until(long); !until.Equal(long) {
		t.Errorf("after a long run a restart waits %s", until.Sub(long))
	}
}

func TestImageTag(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx": corev1.PullAlways, "nginx:latest": corev1.PullAlways, "nginx:1.2": corev1.PullIfNotPresent,
		"localhost:5000/nginx": corev1.PullAlways, "localhost:5000/nginx:1": corev1.PullIfNotPresent,
		"nginx@sha256:abc": corev1.PullIfNotPresent, "nginx:latest@sha256:abc": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(&corev1.Container{Image: image}); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}
