// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/event"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// TestStatusRelay: a status is passed on, and wakes, when it's news: neither when the object has it already, nor a second time.
func TestStatusRelay(t *testing.T) {
	r := NewRelay[int]()
	for i, step := range []struct {
		what    string
		status  int
		written bool
		latest  int
		known   bool
		wakes   bool
	}{
		{"written already, nothing told before", 3, true, 0, false, false},
		{"on the way", 5, false, 5, true, true},
		{"the same again", 5, false, 5, true, false},
		{"back to what is written", 3, true, 3, true, true},
		{"written, and told already", 3, true, 3, true, false},
	} {
		obj := pod("a", "1")
		r.Tell(obj, step.status, step.written)
		latest, known := r.Latest(obj.UID)
		wakes := len(r.wake)
		for range wakes {
			if e := <-r.wake; e.Object.GetUID() != obj.UID {
				t.Errorf("%d, %s: it wakes for %v", i, step.what, e.Object)
			}
		}
		if latest != step.latest || known != step.known || wakes > 0 != step.wakes {
			t.Errorf("%d, %s: latest %d (%v), %d wakings", i, step.what, latest, known, wakes)
		}
	}
	r.Forget("a")
	if _, known := r.Latest("a"); known {
		t.Error("what is gone is still known")
	}
	for i := range relayBuffer + 1 { // nobody listens: that must hold nobody up
		r.Tell(pod("b", "1"), i+1, false)
	}
	if latest, _ := r.Latest("b"); latest != relayBuffer+1 {
		t.Errorf("with a full buffer the latest is %d", latest)
	}
}

// TestGone: of an object that is gone nothing is remembered, or a manager would grow with each Job and ReplicaSet that ever was.
func TestGone(t *testing.T) {
	status, pods, relay := NewStatusWriter[*pcorev1.Pod](nil, StatusWindow), NewPodSet(nil, nil), NewRelay[int]()
	obj := pod("a", "1")
	status.Wrote(obj, time.Now())
	pods.accept(obj.UID, true)
	pods.listed[obj.UID] = 3
	relay.Tell(obj, 1, false)
	Gone(status.Forget, pods.Forget, relay.Forget).Delete(t.Context(), event.DeleteEvent{Object: obj}, nil)
	if len(status.last)+len(pods.accepted)+len(pods.listed)+len(relay.latest) > 0 {
		t.Errorf("still remembered: %v, %v, %v, %v", status.last, pods.accepted, pods.listed, relay.latest)
	}
}

// TestPodSetDelay: the changes of few pods are looked at soon, those of many wait for one another.
func TestPodSetDelay(t *testing.T) {
	pods := NewPodSet(nil, nil)
	for listed, want := range map[int]time.Duration{0: 0, 1: 200 * time.Microsecond, 20: 4 * time.Millisecond, 100: PodDelay, 5000: PodDelay} {
		pods.listed["a"] = listed
		if got := pods.Delay("a"); got != want {
			t.Errorf("with %d pods a change waits for %s, not %s", listed, got, want)
		}
	}
}
