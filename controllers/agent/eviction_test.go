// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/eviction"
	"github.com/pinnace-dev/pinnace/internal/podstate"
)

// scale is a Meter that reads what the test says.
type scale struct {
	readings eviction.Readings
	usages   eviction.Usages
	asked    int
}

func (s *scale) Readings(context.Context) (eviction.Readings, eviction.Host, error) {
	return s.readings, eviction.Host{}, nil
}

func (s *scale) Usages(context.Context, []*pcorev1.Pod) (eviction.Usages, error) {
	s.asked++
	return s.usages, nil
}

func (s *scale) memory(available int64) {
	s.readings = eviction.Readings{eviction.MemoryAvailable: {Available: available, Capacity: 8 << 30}}
}

// guarded makes the rig's node one that evicts.
func (r *rig) guarded(o eviction.Options, graceMost time.Duration, reclaim func(context.Context) error) (*evictor, *scale) {
	r.t.Helper()
	thresholds, err := o.Thresholds()
	if err != nil {
		r.t.Fatal(err)
	}
	s := &scale{}
	s.memory(4 << 30)
	node := r.agent.node("node-1")
	node.evictor = &evictor{node: node, Eviction: &Eviction{
		Thresholds: thresholds, Transition: 5 * time.Minute, GraceMost: graceMost, Meter: s, Reclaim: reclaim,
	}}
	return node.evictor, s
}

func (r *rig) look(e *evictor) {
	r.t.Helper()
	if _, err := r.agent.lookAtNode(r.t.Context(), e); err != nil {
		r.t.Fatal(err)
	}
	r.settle()
}

func (r *rig) reason(key types.NamespacedName) string {
	status := r.pod(key).Status
	return string(status.Phase) + " " + status.Reason
}

func TestEvictionUnderMemoryPressure(t *testing.T) {
	r := newRig(t)
	e, s := r.guarded(eviction.Defaults(), 0, nil)
	critical := int32(podstate.PriorityClusterCritical)
	within, greedy := r.create(aPod("within").Asks("", "1Gi").Obj()), r.create(aPod("greedy").Asks("", "100Mi").Obj())
	vital := r.create(aPod("vital").Change(func(p *pcorev1.Pod) { p.Spec.Priority = &critical }).Obj())
	s.usages = eviction.Usages{
		"uid-within": {Memory: 512 << 20},
		"uid-greedy": {Memory: 300 << 20, Containers: []eviction.ContainerUsage{{Name: "main", Memory: 300 << 20}}},
		"uid-vital":  {Memory: 5 << 30},
	}
	r.look(e)
	if got := r.agent.Conditions("node-1"); len(got) != 0 || s.asked != 0 {
		t.Errorf("with enough memory: conditions %v, usage asked %d times", got, s.asked)
	}
	s.memory(50 << 20)
	r.look(e)
	r.settle(greedy)
	pod := r.pod(greedy)
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container main was using 300Mi, request is 100Mi, has larger consumption of memory. "
	if pod.Status.Phase != corev1.PodFailed || pod.Status.Reason != "Evicted" || pod.Status.Message != want {
		t.Errorf("the greedy one: %s %s %q", pod.Status.Phase, pod.Status.Reason, pod.Status.Message)
	}
	c := podstate.FindCondition(pod.Status.Conditions, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason != "TerminationByKubelet" || c.Message != want {
		t.Errorf("its condition: %+v", c)
	}
	if c := pod.Status.ContainerStatuses[0]; c.State.Terminated == nil {
		t.Errorf("its container: %+v", c.State)
	}
	if list, err := r.runtime.ListContainers(t.Context(), nil); err != nil || len(list) != 2 {
		t.Errorf("what it held isn't given back: %v %v", list, err)
	}
	if got := r.agent.Conditions("node-1"); len(got) != 1 || got[0] != corev1.NodeMemoryPressure {
		t.Errorf("conditions: %v", got)
	}
	if r.reason(within) != "Running " || r.reason(vital) != "Running " {
		t.Errorf("the others: %s, %s", r.reason(within), r.reason(vital))
	}
	// What is left is taken one at a time, the critical one never.
	r.look(e)
	r.settle(within)
	r.look(e)
	if r.reason(within) != "Failed Evicted" || r.reason(vital) != "Running " {
		t.Errorf("then: %s, %s", r.reason(within), r.reason(vital))
	}
	s.memory(4 << 30)
	r.look(e)
	r.pass(6 * time.Minute)
	r.look(e)
	if got := r.agent.Conditions("node-1"); len(got) != 0 {
		t.Errorf("conditions after the transition: %v", got)
	}
}

func TestSoftEvictionWaits(t *testing.T) {
	r := newRig(t)
	e, s := r.guarded(eviction.Options{Soft: []string{"memory.available<1Gi"}, SoftGrace: []string{"memory.available=1m"}}, 7*time.Second, nil)
	key := r.create(aPod("a").Obj())
	s.memory(500 << 20)
	r.look(e)
	r.pass(30 * time.Second)
	r.look(e)
	if r.reason(key) != "Running " || len(r.agent.Conditions("node-1")) != 1 {
		t.Errorf("within the grace period: %s, %v", r.reason(key), r.agent.Conditions("node-1"))
	}
	r.pass(30 * time.Second)
	r.look(e)
	rec := r.agent.records.find("uid-a")
	if rec.mem.fail == nil || *rec.mem.fail.grace != 7*time.Second {
		t.Errorf("after it: %+v", rec.mem.fail)
	}
	r.settle(key)
	if r.reason(key) != "Failed Evicted" {
		t.Errorf("after it: %s", r.reason(key))
	}
}

func TestDiskIsReclaimedBeforePodsGo(t *testing.T) {
	r := newRig(t)
	var s *scale
	full := eviction.Readings{eviction.NodeFSAvailable: {Available: 5, Capacity: 100}}
	helps := true
	e, s := r.guarded(eviction.Defaults(), 0, func(context.Context) error {
		if helps {
			s.readings = eviction.Readings{eviction.NodeFSAvailable: {Available: 50, Capacity: 100}}
		}
		return nil
	})
	key := r.create(aPod("a").Obj())
	s.readings = full
	r.look(e)
	if r.reason(key) != "Running " || s.asked != 0 {
		t.Errorf("although images gave enough back: %s", r.reason(key))
	}
	helps, s.readings = false, full
	r.look(e)
	r.settle(key)
	if r.reason(key) != "Failed Evicted" || !strings.HasPrefix(r.pod(key).Status.Message, "The node was low on resource: ephemeral-storage. Threshold quantity: 10, available: 5. ") {
		t.Errorf("when they give nothing: %s %q", r.reason(key), r.pod(key).Status.Message)
	}
}

func TestLocalStorageLimits(t *testing.T) {
	r := newRig(t)
	e, s := r.guarded(eviction.Defaults(), 0, nil)
	limit := resource.MustParse("10Mi")
	key := r.create(aPod("a").Change(func(p *pcorev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	}).Obj())
	other := r.create(aPod("other").Obj())
	s.usages = eviction.Usages{"uid-a": {Volumes: map[string]eviction.Disk{"data": {Bytes: 10 << 20}}}}
	r.look(e)
	if r.reason(key) != "Running " || s.asked != 1 {
		t.Errorf("at the limit: %s", r.reason(key))
	}
	s.usages["uid-a"].Volumes["data"] = eviction.Disk{Bytes: 10<<20 + 1}
	r.look(e)
	r.settle(key)
	pod := r.pod(key)
	if r.reason(key) != "Failed Evicted" || pod.Status.Message != `Usage of EmptyDir volume "data" exceeds the limit "10Mi". ` || r.reason(other) != "Running " {
		t.Errorf("above it: %s %q; the other: %s", r.reason(key), pod.Status.Message, r.reason(other))
	}
	// Upstream has the condition only for what the node lacks.
	if c := podstate.FindCondition(pod.Status.Conditions, corev1.DisruptionTarget); c != nil {
		t.Errorf("a condition: %+v", c)
	}
}
