// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/podstate"
	"github.com/pinnace-dev/pinnace/internal/runtime"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
	"github.com/pinnace-dev/pinnace/internal/volume"
)

func TestWhichPodsANodeTakes(t *testing.T) {
	sysctl := func(name string, change func(*pcorev1.Pod)) *pcorev1.Pod {
		return aPod("a").Change(func(p *pcorev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
			if change != nil {
				change(p)
			}
		}).Obj()
	}
	confined := aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}
	}).Obj()
	for name, tc := range map[string]struct {
		pod          *pcorev1.Pod
		facts        nodeFacts
		reason, text string
	}{
		"a plain pod":                  {aPod("a").Obj(), nodeFacts{withoutAppArmor: true}, "", ""},
		"a safe sysctl":                {sysctl("net.ipv4.tcp_syncookies", nil), nodeFacts{}, "", ""},
		"written with slashes":         {sysctl("net/ipv4/tcp_syncookies", nil), nodeFacts{}, "", ""},
		"an unsafe sysctl":             {sysctl("kernel.msgmax", nil), nodeFacts{}, reasonSysctl, `"kernel.msgmax" not allowlisted`},
		"an unsafe one, allowed":       {sysctl("kernel.msgmax", nil), nodeFacts{unsafeSysctls: []string{"kernel.msg*"}}, "", ""},
		"allowed by its name alone":    {sysctl("kernel.msgmax2", nil), nodeFacts{unsafeSysctls: []string{"kernel.msgmax"}}, reasonSysctl, "not allowlisted"},
		"of the host's network":        {sysctl("net.ipv4.tcp_syncookies", func(p *pcorev1.Pod) { p.Spec.HostNetwork = true }), nodeFacts{}, reasonSysctl, "host net enabled"},
		"of the host's IPC":            {sysctl("kernel.shm_rmid_forced", func(p *pcorev1.Pod) { p.Spec.HostIPC = true }), nodeFacts{}, reasonSysctl, "host ipc enabled"},
		"AppArmor where there is":      {confined, nodeFacts{}, "", ""},
		"AppArmor where there isn't":   {confined, nodeFacts{withoutAppArmor: true}, reasonAppArmor, "Cannot enforce AppArmor"},
		"while the node goes for good": {aPod("a").Obj(), nodeFacts{down: downForGood}, reasonShutdown, "shutting down"},
	} {
		got := refused(situation{pod: tc.pod, seen: &observed{}, mem: &memory{facts: tc.facts}})
		if got == nil {
			got = &podFailure{}
		}
		if got.reason != tc.reason || !strings.Contains(got.message, tc.text) {
			t.Errorf("%s: %q, %q", name, got.reason, got.message)
		}
	}
}

func TestRecursiveReadOnly(t *testing.T) {
	mount := func(mode corev1.RecursiveReadOnlyMode, readOnly bool, propagation corev1.MountPropagationMode) corev1.VolumeMount {
		return corev1.VolumeMount{Name: "v", ReadOnly: readOnly, RecursiveReadOnly: &mode, MountPropagation: &propagation}
	}
	for name, tc := range map[string]struct {
		mount          corev1.VolumeMount
		possible, want bool
		err            string
	}{
		"not asked for":             {corev1.VolumeMount{ReadOnly: true}, true, false, ""},
		"if possible, and it is":    {mount(corev1.RecursiveReadOnlyIfPossible, true, corev1.MountPropagationNone), true, true, ""},
		"if possible, and it isn't": {mount(corev1.RecursiveReadOnlyIfPossible, true, corev1.MountPropagationNone), false, false, ""},
		"needed, and it isn't":      {mount(corev1.RecursiveReadOnlyEnabled, true, corev1.MountPropagationNone), false, false, "use IfPossible"},
		"of what may be written":    {mount(corev1.RecursiveReadOnlyEnabled, false, corev1.MountPropagationNone), true, false, "needs readOnly"},
		"with propagation":          {mount(corev1.RecursiveReadOnlyEnabled, true, corev1.MountPropagationHostToContainer), true, false, "mountPropagation"},
	} {
		got, err := recursiveReadOnly(tc.mount, tc.possible)
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// featured is a fake runtime that has user namespaces.
type featured struct{ *fake.Runtime }

func (featured) Features(context.Context) (runtime.Features, error) {
	return runtime.Features{UserNamespaces: true}, nil
}

func TestUserNamespacesAreEachPodsOwn(t *testing.T) {
	volumes, err := volume.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := newNodeState(Node{Name: "n", Runtime: featured{fake.New(fake.Options{})}, Volumes: volumes})
	private := func(name string) *pcorev1.Pod {
		return aPod(name).Change(func(p *pcorev1.Pod) { p.Spec.HostUsers = new(false) }).Obj()
	}
	of := func(n *nodeState, pod *pcorev1.Pod) uint32 {
		t.Helper()
		users, err := n.userNamespace(t.Context(), pod)
		if err != nil || users == nil {
			t.Fatalf("%v, %v", users, err)
		}
		return users.Uids[0].HostId
	}
	one, two := of(n, private("one")), of(n, private("two"))
	if one == 0 || one == two || one%usersEach != 0 {
		t.Errorf("the ranges begin at %d and %d", one, two)
	}
	again := newNodeState(Node{Name: "n", Runtime: featured{fake.New(fake.Options{})}, Volumes: volumes})
	if got := of(again, private("one")); got != one {
		t.Errorf("after a restart the range begins at %d, not %d", got, one)
	}
	if err := volumes.Unmount("uid-one"); err != nil {
		t.Fatal(err)
	}
	if got := of(again, private("three")); got != one {
		t.Errorf("a range that is free again isn't used: %d", got)
	}
	if users, err := n.userNamespace(t.Context(), aPod("plain").Obj()); users != nil || err != nil {
		t.Errorf("a pod that didn't ask has %v, %v", users, err)
	}
	without := newNodeState(Node{Name: "n", Runtime: fake.New(fake.Options{}), Volumes: volumes})
	if _, err := without.userNamespace(t.Context(), private("four")); err == nil || !strings.Contains(err.Error(), "hostUsers: false needs") {
		t.Errorf("where there are none: %v", err)
	}
}

func TestANodeThatGoesDownForNowFailsNoPod(t *testing.T) {
	for name, policy := range map[string]corev1.RestartPolicy{"always": corev1.RestartPolicyAlways, "never": corev1.RestartPolicyNever, "failure": corev1.RestartPolicyOnFailure} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			key := r.create(aPod("a").Restart(policy).Sidecar("side").Obj())
			r.agent.node("node-1").down.Store(int32(downForNow))
			r.settle(key)
			status := r.pod(key).Status
			if status.Phase != corev1.PodRunning || status.Reason != podstate.ReasonNodeDown || podstate.IsTrue(status.Conditions, corev1.PodReady) {
				t.Errorf("phase %s, reason %s", status.Phase, status.Reason)
			}
			for _, c := range append(status.ContainerStatuses, status.InitContainerStatuses...) {
				if c.State.Terminated == nil {
					t.Errorf("container %s: %+v", c.Name, c.State)
				}
			}
			late := r.create(aPod("late").Obj())
			r.pass(time.Second)
			if r.pod(late).Status.Phase != corev1.PodPending || r.runtime.Count("RunPodSandbox") != 1 {
				t.Errorf("a pod that comes meanwhile: %+v", r.pod(late).Status)
			}
		})
	}
}
