// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// podBuilder makes pods for tests.
type podBuilder struct{ pod *pcorev1.Pod }

func aPod(name string) podBuilder {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "test", UID: types.UID(name), CreationTimestamp: metav1.NewTime(start.Add(-time.Hour))}}
	p.Status.Phase = corev1.PodRunning
	p.Spec.NodeName = "node"
	return podBuilder{p}
}

func (b podBuilder) on(node string) podBuilder          { b.pod.Spec.NodeName = node; return b }
func (b podBuilder) phase(p corev1.PodPhase) podBuilder { b.pod.Status.Phase = p; return b }
func (b podBuilder) created(ago time.Duration) podBuilder {
	b.pod.CreationTimestamp = metav1.NewTime(start.Add(-ago))
	return b
}

func (b podBuilder) ready(ago time.Duration) podBuilder {
	b.pod.Status.Conditions = append(b.pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(-ago))})
	return b
}

func (b podBuilder) cost(c string) podBuilder {
	b.pod.Annotations = map[string]string{corev1.PodDeletionCost: c}
	return b
}

func (b podBuilder) restarts(n int32) podBuilder {
	b.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}}
	return b
}

func (b podBuilder) deleted() podBuilder {
	b.pod.DeletionTimestamp = &metav1.Time{Time: start}
	return b
}

func (b podBuilder) labelled(kv ...string) podBuilder {
	b.pod.Labels = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		b.pod.Labels[kv[i]] = kv[i+1]
	}
	return b
}

func (b podBuilder) owned(by types.UID) podBuilder {
	b.pod.OwnerReferences = []metav1.OwnerReference{{UID: by, Controller: new(true)}}
	return b
}

func (b podBuilder) container(s corev1.ContainerState) podBuilder {
	b.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: s}}
	return b
}

func (b podBuilder) Obj() *pcorev1.Pod { return b.pod }

func TestName(t *testing.T) {
	shape := regexp.MustCompile("^web-[bcdfghjklmnpqrstvwxz2456789]{5}$")
	seen := map[string]bool{}
	for slot := range 20000 {
		name := Name("web", "a-uid", slot)
		if !shape.MatchString(name) || seen[name] {
			t.Fatalf("slot %d is called %s, which is malformed or was there", slot, name)
		}
		seen[name] = true
	}
	first, again, other := Name("web", "a-uid", 7), Name("web", "a-uid", 7), Name("web", "another", 7)
	if first != again || first == other {
		t.Error("a name must depend on nothing but the owner, its UID and the slot")
	}
	if n := len(Name(strings.Repeat("x", 200), "u", 0)); n != 63 {
		t.Errorf("the name under a long owner has %d characters; a host name holds 63", n)
	}
}

// TestDeletionOrder: in each pair the first pod goes first, by upstream's rule of that name.
func TestDeletionOrder(t *testing.T) {
	colocated := map[string]int{"crowded": 3, "node": 1}
	for rule, pair := range map[string][2]podBuilder{
		"unassigned before assigned":          {aPod("b").on(""), aPod("a")},
		"pending before running":              {aPod("b").phase(corev1.PodPending), aPod("a")},
		"unknown before running":              {aPod("b").phase(corev1.PodUnknown), aPod("a")},
		"not ready before ready":              {aPod("b"), aPod("a").ready(time.Hour)},
		"cheap before dear":                   {aPod("b").ready(time.Hour).cost("-5"), aPod("a").ready(time.Minute).cost("3")},
		"doubled up before alone":             {aPod("b").ready(time.Hour).on("crowded"), aPod("a").ready(time.Minute)},
		"ready for less time before for more": {aPod("b").ready(time.Minute), aPod("a").ready(time.Hour)},
		"more restarts before fewer":          {aPod("b").restarts(3), aPod("a").restarts(1)},
		"younger before older":                {aPod("b").created(time.Minute), aPod("a").created(time.Hour)},
		"of one order of magnitude, the UID":  {aPod("a").ready(61 * time.Minute), aPod("b").ready(60 * time.Minute)},
	} {
		for _, list := range [][]*pcorev1.Pod{{pair[0].Obj(), pair[1].Obj()}, {pair[1].Obj(), pair[0].Obj()}} {
			got := DeletionOrder(list, colocated, start)
			if got[0] != pair[0].Obj() {
				t.Errorf("%s: pod %s goes first", rule, got[0].Name)
			}
		}
	}
}

func TestPlan(t *testing.T) {
	names := func(c Change) []string {
		var out []string
		for _, n := range c.Create {
			out = append(out, "+"+n)
		}
		for _, p := range c.Delete {
			out = append(out, "-"+p.Name)
		}
		return out
	}
	slot := func(n int) string { return Name("web", "u", n) }
	for what, test := range map[string]struct {
		want    int32
		pods    []podBuilder
		foreign map[string]bool
		plan    []string
	}{
		"all there":                            {want: 1, pods: []podBuilder{aPod(slot(0))}},
		"none there":                           {want: 2, plan: []string{"+" + slot(0), "+" + slot(1)}},
		"a terminating pod holds its name":     {want: 1, pods: []podBuilder{aPod(slot(0)).deleted()}, plan: []string{"+" + slot(1)}},
		"an ended pod holds its name":          {want: 1, pods: []podBuilder{aPod(slot(0)).phase(corev1.PodFailed)}, plan: []string{"+" + slot(1)}},
		"the lowest free slot is filled":       {want: 2, pods: []podBuilder{aPod(slot(1))}, plan: []string{"+" + slot(0)}},
		"names of others are passed by":        {want: 1, foreign: map[string]bool{slot(0): true}, plan: []string{"+" + slot(1)}},
		"too many":                             {want: 1, pods: []podBuilder{aPod("x").ready(time.Hour), aPod("y")}, plan: []string{"-y"}},
		"deleted ones don't count as too many": {want: 1, pods: []podBuilder{aPod("x"), aPod("y").deleted()}},
	} {
		r := Replicas{Owner: "web", UID: "u", Want: test.want, Foreign: test.foreign, Now: start}
		for _, b := range test.pods {
			r.Pods = append(r.Pods, b.Obj())
		}
		if diff := cmp.Diff(test.plan, names(r.Plan())); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

func TestClaim(t *testing.T) {
	owner := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "owner", Namespace: "test", UID: "me"}} // any object will do
	pods := []*pcorev1.Pod{
		aPod("mine").owned("me").labelled("app", "web").Obj(),
		aPod("strayed").owned("me").labelled("app", "other").Obj(),
		aPod("orphan").labelled("app", "web").Obj(),
		aPod("dying-orphan").labelled("app", "web").deleted().Obj(),
		aPod("unrelated").labelled("app", "other").Obj(),
		aPod("theirs").owned("them").labelled("app", "web").Obj(),
	}
	list := func(pods []*pcorev1.Pod) string {
		var out []string
		for _, p := range pods {
			out = append(out, p.Name)
		}
		return strings.Join(out, " ")
	}
	c := ClaimObjects(owner, labels.SelectorFromSet(labels.Set{"app": "web"}), pods)
	if got, want := fmt.Sprintf("%s|%s|%s", list(c.Owned), list(c.Adopt), list(c.Release)), "mine|orphan|strayed"; got != want {
		t.Errorf("claimed %s, want %s", got, want)
	}
	if c := ClaimObjects(owner, labels.Everything(), pods); len(c.Adopt) > 0 {
		t.Errorf("an empty selector adopts %s", list(c.Adopt))
	}
	owner.DeletionTimestamp = &metav1.Time{Time: start}
	c = ClaimObjects(owner, labels.SelectorFromSet(labels.Set{"app": "web"}), pods)
	if got := fmt.Sprintf("%s|%s|%s", list(c.Owned), list(c.Adopt), list(c.Release)); got != "mine||" {
		t.Errorf("an owner that is being deleted claims %s", got)
	}
}

func TestCount(t *testing.T) {
	pods := []*pcorev1.Pod{
		aPod("available").labelled("a", "1").ready(time.Minute).Obj(),
		aPod("ready-only").labelled("a", "2").ready(4 * time.Second).Obj(),
		aPod("not-ready").labelled("a", "1").Obj(),
		aPod("terminating").labelled("a", "1").ready(time.Minute).deleted().Obj(),
		aPod("ended").labelled("a", "1").phase(corev1.PodFailed).Obj(),
		aPod("ended-and-deleted").phase(corev1.PodSucceeded).deleted().Obj(),
	}
	want := Counts{Replicas: 3, FullyLabeled: 2, Ready: 2, Available: 1, Terminating: 1, NextAvailable: 6 * time.Second}
	if diff := cmp.Diff(want, Count(pods, map[string]string{"a": "1"}, 10, start)); diff != "" {
		t.Error(diff)
	}
}

func TestFirstProblem(t *testing.T) {
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	running := func(ago time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(start.Add(-ago))}}
	}
	unplaced := aPod("d").on("").phase(corev1.PodPending).Obj()
	unplaced.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient cpu."}}
	for what, test := range map[string]struct {
		pods []*pcorev1.Pod
		want string
		wait time.Duration
	}{
		"all ready":                  {pods: []*pcorev1.Pod{aPod("a").ready(0).Obj()}},
		"starting is no problem":     {pods: []*pcorev1.Pod{aPod("a").container(waiting("ContainerCreating", "")).Obj()}},
		"a slow start isn't one yet": {pods: []*pcorev1.Pod{aPod("a").container(running(4 * time.Second)).Obj()}, wait: 6 * time.Second},
		"a very slow start is one":   {pods: []*pcorev1.Pod{aPod("a").container(running(time.Minute)).Obj()}, want: "ContainersNotReady: Container main of pod a runs, but isn't ready."},
		"unplaced":                   {pods: []*pcorev1.Pod{unplaced}, want: "Unschedulable: Pod d isn't placed on a node: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."},
		"the telling one of several, then the first by name": {
			pods: []*pcorev1.Pod{unplaced, aPod("c").container(waiting("CrashLoopBackOff", "back-off 10s")).Obj(), aPod("b").container(waiting("ImagePullBackOff", "")).Obj()},
			want: "ImagePullBackOff: Container main of pod b is waiting: ImagePullBackOff.",
		},
		"deleted pods are nobody's problem": {pods: []*pcorev1.Pod{aPod("a").container(waiting("CrashLoopBackOff", "")).deleted().Obj()}},
	} {
		p, wait := FirstProblem(test.pods, start)
		got := ""
		if p != nil {
			got = p.Reason + ": " + p.Message
		}
		if got != test.want || wait != test.wait {
			t.Errorf("%s: %q after %s, want %q after %s", what, got, wait, test.want, test.wait)
		}
	}
}

// TestPlanConverges: whatever is there, a plan that is carried out leads to the wanted number, with no name used twice.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Replicas{Owner: "web", UID: "u", Want: rapid.Int32Range(0, 30).Draw(t, "want"), Now: start}
		held := map[string]bool{}
		for i := range rapid.IntRange(0, 40).Draw(t, "pods") {
			b := aPod(Name("web", "u", rapid.IntRange(0, 60).Draw(t, "slot"))).phase(rapid.SampledFrom([]corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodFailed}).Draw(t, "phase"))
			if held[b.pod.Name] {
				continue
			}
			held[b.pod.Name] = true
			if rapid.Bool().Draw(t, "deleted") {
				b.deleted()
			}
			_ = i
			r.Pods = append(r.Pods, b.Obj())
		}
		change := r.Plan()
		if len(change.Create) > 0 && len(change.Delete) > 0 {
			t.Fatalf("a plan both makes and deletes pods")
		}
		for _, name := range change.Create {
			if held[name] {
				t.Fatalf("name %s is used twice", name)
			}
			held[name] = true
			r.Pods = append(r.Pods, aPod(name).Obj())
		}
		for _, p := range change.Delete {
			p.DeletionTimestamp = &metav1.Time{Time: start}
		}
		if again := r.Plan(); len(again.Create)+len(again.Delete) > 0 {
			t.Fatalf("a second plan isn't empty: %+v", again)
		}
	})
}
