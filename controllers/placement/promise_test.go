// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

// counted is a loop that has seen everything, with one node of that much CPU.
func counted(cpu string) *Reconciler {
	r := NewReconciler(newRecorder())
	r.setNode(node("a", cpu))
	r.setCounted(true)
	return r
}

// wish is a pod that is about to be created.
func wish(name, cpu string) *pcorev1.Pod {
	p := pod(name, cpu)
	p.UID, p.ResourceVersion = "", ""
	return p
}

// made is the pod as the API server has it after its creation.
func made(p *pcorev1.Pod, uid string) *pcorev1.Pod {
	out := p.DeepCopy()
	out.UID, out.ResourceVersion = types.UID(uid), "1"
	return out
}

var refusal = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "p", errors.New("quota"))

// TestPromiseHoldsRoom: what is promised to one pod isn't given to another, until the API server refuses it.
func TestPromiseHoldsRoom(t *testing.T) {
	r := counted("1")
	first, second := wish("first", "600m"), wish("second", "600m")
	if !r.Promise(first) || first.Spec.NodeName != "a" || !slices.Contains(first.Finalizers, NodeFinalizer) {
		t.Fatalf("first was left alone: %+v", first.Spec.NodeName)
	}
	if r.Promise(second) || second.Spec.NodeName != "" || len(second.Finalizers) > 0 {
		t.Fatal("second got room that is promised to first")
	}
	r.Settle(first, refusal)
	if !r.Promise(second) {
		t.Fatal("the refused pod's room isn't free")
	}
	r.Settle(second, nil)
}

// TestPromiseKept: a pod that the watch shows counts once, whether the watch or the answer is first.
func TestPromiseKept(t *testing.T) {
	for _, watchFirst := range []bool{true, false} {
		r := counted("1")
		first := wish("first", "500m")
		r.Promise(first)
		there := made(first, "uid-1")
		if watchFirst {
			r.setPod(there)
			r.Settle(there, nil)
		} else {
			r.Settle(there, nil)
			r.setPod(there)
		}
		if len(r.promises) != 0 {
			t.Errorf("watch first: %t: the promise is still held", watchFirst)
		}
		if !r.Promise(wish("second", "500m")) {
			t.Errorf("watch first: %t: the pod counts twice", watchFirst)
		}
	}
}

// TestPromiseUnknown: after an answer that got lost, room is held until the watch shows the pod or the promise expires.
func TestPromiseUnknown(t *testing.T) {
	for _, err := range []error{errors.New("connection reset"), apierrors.NewTimeoutError("slow", 0), apierrors.NewInternalError(errors.New("broken"))} {
		r := counted("1")
		first, second := wish("first", "600m"), wish("second", "600m")
		r.Promise(first)
		r.Settle(first, err)
		if r.Promise(second) {
			t.Fatalf("%v: room of a pod that may be there was given away", err)
		}
		key := client.ObjectKeyFromObject(first)
		r.expire(key, r.promises[key])
		if !r.Promise(second) {
			t.Fatalf("%v: the expired promise still holds room", err)
		}
	}
}

// TestPromiseAndNamesakes: an older pod of the same name neither keeps nor breaks a promise; the promised pod's end does.
func TestPromiseAndNamesakes(t *testing.T) {
	r := counted("2")
	old := made(wish("p", "500m"), "old")
	old.Spec.NodeName = "a"
	r.setPod(old)
	next := wish("p", "500m")
	r.Promise(next)
	r.setPod(old)
	r.removePod(old)
	if len(r.promises) != 1 {
		t.Fatal("the old pod ended the promise")
	}
	there := made(next, "new")
	r.Settle(there, nil)
	r.removePod(there) // made and gone, and nothing but the end was seen
	if len(r.promises) != 0 {
		t.Fatal("a pod that is gone still has a promise")
	}
}

// TestPromiseWaitsItsTurn: who waits for room comes first, unless it is less important.
func TestPromiseWaitsItsTurn(t *testing.T) {
	r := counted("1")
	r.setPod(pod("large", "2"))
	r.cycle()
	if r.Promise(wish("small", "100m")) {
		t.Error("a new pod passed by one that waits")
	}
	urgent := wish("urgent", "100m")
	urgent.Spec.Priority = new(int32(10))
	if !r.Promise(urgent) {
		t.Error("an important pod waits for one that isn't")
	}
}

// TestPromiseNothing: pods whose node can't be chosen yet are left alone.
func TestPromiseNothing(t *testing.T) {
	if NewReconciler(newRecorder()).Promise(wish("early", "1m")) {
		t.Error("promised before the bound pods were counted")
	}
	for name, change := range map[string]func(*pcorev1.Pod){
		"bound":        func(p *pcorev1.Pod) { p.Spec.NodeName = "b" },
		"gated":        func(p *pcorev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}} },
		"other":        func(p *pcorev1.Pod) { p.Spec.SchedulerName = "somebody-else" },
		"host network": func(p *pcorev1.Pod) { p.Spec.HostNetwork = true },
		"priority":     func(p *pcorev1.Pod) { p.Spec.PriorityClassName = "high" },
		"no name":      func(p *pcorev1.Pod) { p.Name = "" },
		"too large": func(p *pcorev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("8")
		},
	} {
		p := wish("p", "1m")
		change(p)
		if r := counted("4"); r.Promise(p) {
			t.Errorf("%s: promised to node %q", name, p.Spec.NodeName)
		}
	}
}

// TestPromiseCompletesRequests: a limit without a request counts, as it will once the API server has the pod.
func TestPromiseCompletesRequests(t *testing.T) {
	r := counted("1")
	p := wish("p", "1m")
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("800m")}}
	if !r.Promise(p) || r.Promise(wish("q", "300m")) {
		t.Error("a limit without a request doesn't count")
	}
}

// TestPromiseProperty: whatever the order of creations, lost answers, watch events and expiries, a node never gets more than fits, and in
// the end exactly the pods that are there count.
func TestPromiseProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := counted("1") // room for ten
		type state struct {
			pod           *pcorev1.Pod
			exists, shown bool
			settled       bool
		}
		var pods []*state
		running := func() (n int) {
			for _, s := range pods {
				if s.exists {
					n++
				}
			}
			return n
		}
		pick := func(ok func(*state) bool) *state {
			var fit []*state
			for _, s := range pods {
				if ok(s) {
					fit = append(fit, s)
				}
			}
			if len(fit) == 0 {
				return nil
			}
			return rapid.SampledFrom(fit).Draw(t, "pod")
		}
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				n++
				p := wish(fmt.Sprintf("p%d", n), "100m")
				if !r.Promise(p) {
					return
				}
				there := made(p, fmt.Sprintf("uid-%d", n))
				pods = append(pods, &state{pod: there, exists: rapid.Bool().Draw(t, "accepted")})
			},
			"settle": func(t *rapid.T) {
				s := pick(func(s *state) bool { return !s.settled })
				if s == nil {
					return
				}
				s.settled = true
				switch {
				case !s.exists && !s.shown:
					r.Settle(s.pod, refusal)
				case rapid.Bool().Draw(t, "lost"):
					r.Settle(s.pod, errors.New("lost"))
				default:
					r.Settle(s.pod, nil)
				}
			},
			"show": func(*rapid.T) {
				if s := pick(func(s *state) bool { return s.exists && !s.shown }); s != nil {
					s.shown = true
					r.setPod(s.pod)
				}
			},
			"end": func(*rapid.T) {
				if s := pick(func(s *state) bool { return s.exists && s.shown }); s != nil {
					s.exists = false
					r.removePod(s.pod)
				}
			},
			"": func(t *rapid.T) {
				if got := running(); got > 10 {
					t.Fatalf("%d pods run where ten fit", got)
				}
			},
		})
		for _, s := range pods {
			if s.exists && !s.shown {
				r.setPod(s.pod)
			}
			if !s.settled {
				r.Settle(s.pod, map[bool]error{true: nil, false: refusal}[s.exists || s.shown])
			}
		}
		for key, p := range r.promises {
			r.expire(key, p)
		}
		free := 0
		for r.Promise(wish(fmt.Sprintf("probe%d", free), "100m")) {
			free++
		}
		if free != 10-running() {
			t.Fatalf("%d pods run, and there is room for %d more", running(), free)
		}
	})
}
