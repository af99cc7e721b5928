// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	ppolicyv1 "github.com/pinnace-dev/pinnace/api/policy/v1"
)

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func newPod(name string, ready bool) *pcorev1.Pod {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "test", Labels: map[string]string{"app": "web"}, CreationTimestamp: metav1.NewTime(start.Add(-time.Hour))}}
	p.Status.Phase = corev1.PodRunning
	setReady(p, ready)
	return p
}

func setReady(p *pcorev1.Pod, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
}

func newBudget(change func(*ppolicyv1.PodDisruptionBudget)) *ppolicyv1.PodDisruptionBudget {
	b := &ppolicyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "guard", Namespace: "test", Generation: 2}}
	b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	b.Spec.MinAvailable = new(intstr.FromInt32(2))
	b.Status.ObservedGeneration, b.Status.CurrentHealthy, b.Status.DesiredHealthy, b.Status.ExpectedPods, b.Status.DisruptionsAllowed = 2, 3, 2, 3, 1
	if change != nil {
		change(b)
	}
	return b
}

func TestTarget(t *testing.T) {
	percent, number := func(s string) *intstr.IntOrString { return new(intstr.FromString(s)) }, func(n int32) *intstr.IntOrString { return new(intstr.FromInt32(n)) }
	for what, test := range map[string]struct {
		least, most       *intstr.IntOrString
		matching, scale   int32
		expected, healthy int32
		fails, needsScale bool
	}{
		"nothing asked":             {matching: 4, scale: 5},
		"at least a number":         {least: number(3), matching: 4, scale: 5, expected: 4, healthy: 3},
		"at least more than are":    {least: number(9), matching: 4, scale: 5, expected: 4, healthy: 9},
		"at least a share":          {least: percent("50%"), matching: 4, scale: 5, expected: 5, healthy: 3, needsScale: true},
		"at least all":              {least: percent("100%"), matching: 4, scale: 5, expected: 5, healthy: 5, needsScale: true},
		"at most a number":          {most: number(2), matching: 4, scale: 5, expected: 5, healthy: 3, needsScale: true},
		"at most more than are":     {most: number(9), matching: 4, scale: 5, expected: 5, healthy: 0, needsScale: true},
		"at most a share, upwards":  {most: percent("30%"), matching: 4, scale: 5, expected: 5, healthy: 3, needsScale: true},
		"at most a share of nobody": {most: percent("30%"), needsScale: true},
		"what is neither":           {least: percent("many"), scale: 5, expected: 5, fails: true, needsScale: true},
	} {
		t.Run(what, func(t *testing.T) {
			spec := &policyv1.PodDisruptionBudgetSpec{MinAvailable: test.least, MaxUnavailable: test.most}
			expected, healthy, err := Target(spec, test.matching, test.scale)
			if expected != test.expected || healthy != test.healthy || (err != nil) != test.fails || NeedsScale(spec) != test.needsScale {
				t.Errorf("expected %d, healthy %d, %v, needs the scale: %v", expected, healthy, err, NeedsScale(spec))
			}
		})
	}
}

func TestPending(t *testing.T) {
	noted := map[string]metav1.Time{}
	for _, name := range []string{"waits", "goes", "late", "gone", "new"} {
		noted[name] = metav1.NewTime(start)
	}
	noted["late"] = metav1.NewTime(start.Add(-2*time.Minute - time.Second))
	goes, next := newPod("goes", true), newPod("new", true)
	goes.DeletionTimestamp = new(metav1.NewTime(start))
	next.CreationTimestamp = metav1.NewTime(start.Add(time.Second))
	pods := []*pcorev1.Pod{newPod("waits", true), goes, newPod("late", true), next, newPod("calm", true), newPod("unready", false)}
	pending, recheck, expired := Pending(noted, pods, start.Add(time.Second))
	if diff := cmp.Diff(map[string]metav1.Time{"waits": metav1.NewTime(start)}, pending); diff != "" {
		t.Error(diff)
	}
	if !recheck.Equal(start.Add(DeletionTimeout)) || len(expired) != 1 || expired[0].Name != "late" {
		t.Errorf("recheck %s, expired %v", recheck, expired)
	}
	if n := Healthy(pods, pending); n != 3 {
		t.Errorf("%d healthy, want late, new and calm", n)
	}
}

func TestMayEvict(t *testing.T) {
	deleted, ended, pending := newPod("a", true), newPod("a", true), newPod("a", false)
	deleted.DeletionTimestamp = new(metav1.NewTime(start))
	ended.Status.Phase, pending.Status.Phase = corev1.PodFailed, corev1.PodPending
	other := newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Name = "other" })
	for what, test := range map[string]struct {
		pod     *pcorev1.Pod
		budgets []*ppolicyv1.PodDisruptionBudget
		want    Decision
		claims  bool
	}{
		"no budget":              {pod: newPod("a", true)},
		"a deleted pod":          {pod: deleted, budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(nil), other}},
		"an ended pod":           {pod: ended, budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(nil)}},
		"a pod that isn't up":    {pod: pending, budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(nil)}, want: Decision{ExactPod: true}},
		"one may go":             {pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(nil)}, want: Decision{Budget: "guard"}, claims: true},
		"another's budget":       {pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Spec.Selector.MatchLabels["app"] = "db" })}},
		"another namespace's":    {pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Namespace = "else" })}},
		"a budget for nobody":    {pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Spec.Selector = nil })}},
		"a budget for everybody": {pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Spec.Selector = &metav1.LabelSelector{} })}, want: Decision{Budget: "guard"}, claims: true},
		"two budgets": {
			pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{other, newBudget(nil)},
			want: Decision{Answer: Ambiguous, Message: "Pod a is selected by more than one PodDisruptionBudget (guard, other): leave one."},
		},
		"none may go": {
			pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = 0, 2 })},
			want: Decision{Answer: NotNow, Budget: "guard", Message: "The disruption budget guard needs 2 healthy pods and has 2."},
		},
		"the controller is behind": {
			pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Generation = 3 })},
			want: Decision{Answer: NotNow, Budget: "guard", Message: "The disruption budget guard is still being processed by its controller.", RetryAfter: 10 * time.Second},
		},
		"the controller can't count": {
			pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) {
				b.Status.DisruptionsAllowed = 0
				b.Status.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: "no scale."}}
			})},
			want: Decision{Answer: NotNow, Budget: "guard", Message: "The disruption budget guard allows no eviction, since it couldn't be counted: no scale."},
		},
		"a negative status": {
			pod: newPod("a", true), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = -1 })},
			want: Decision{Answer: Never, Budget: "guard", Message: "The disruption budget guard allows a negative number of disruptions."},
		},
		"unhealthy, the budget is healthy": {
			pod: newPod("a", false), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = 0, 2 })},
			want: Decision{Budget: "guard", ExactPod: true},
		},
		"unhealthy, the budget isn't healthy": {
			pod: newPod("a", false), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed, b.Status.CurrentHealthy = 0, 1 })},
			want: Decision{Answer: NotNow, Budget: "guard", Message: "The disruption budget guard needs 2 healthy pods and has 1."},
		},
		"unhealthy, always allowed": {
			pod: newPod("a", false), budgets: []*ppolicyv1.PodDisruptionBudget{newBudget(func(b *ppolicyv1.PodDisruptionBudget) {
				b.Status.DisruptionsAllowed, b.Status.CurrentHealthy, b.Spec.UnhealthyPodEvictionPolicy = 0, 1, new(policyv1.AlwaysAllow)
			})},
			want: Decision{Budget: "guard", ExactPod: true},
		},
	} {
		t.Run(what, func(t *testing.T) {
			got := MayEvict(test.pod, test.budgets, start)
			claim := got.Claim
			got.Claim = nil
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if !test.claims {
				if claim != nil {
					t.Errorf("it claims %+v", claim.Status)
				}
				return
			}
			want := newBudget(nil).Status
			want.DisruptionsAllowed, want.DisruptedPods = 0, map[string]metav1.Time{"a": metav1.NewTime(start)}
			want.Conditions = []metav1.Condition{{
				Type: "DisruptionAllowed", Status: metav1.ConditionFalse, Reason: "InsufficientPods", ObservedGeneration: 2, LastTransitionTime: metav1.NewTime(start),
			}}
			if diff := cmp.Diff(want, claim.Status); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// stage is an application whose pods are evicted by some and replaced by others, with a controller whose caches lag.
type stage struct {
	t      *rapid.T
	now    time.Time
	pods   []*pcorev1.Pod
	made   int
	budget *ppolicyv1.PodDisruptionBudget
	// pastPods and pastBudgets are all states there were; the caches show one of them.
	pastPods    [][]*pcorev1.Pod
	pastBudgets []*ppolicyv1.PodDisruptionBudget
	seenPods    int
	seenBudget  int
}

func (s *stage) record() {
	var pods []*pcorev1.Pod
	for _, p := range s.pods {
		pods = append(pods, p.DeepCopy())
	}
	s.pastPods = append(s.pastPods, pods)
}

func (s *stage) put(b *ppolicyv1.PodDisruptionBudget) bool {
	if b.ResourceVersion != s.budget.ResourceVersion {
		return false
	}
	s.budget = b.DeepCopy()
	s.budget.ResourceVersion = fmt.Sprint(len(s.pastBudgets) + 1)
	s.pastBudgets = append(s.pastBudgets, s.budget.DeepCopy())
	return true
}

func (s *stage) add(ready bool) {
	s.made++
	p := newPod(fmt.Sprint("p", s.made), ready)
	p.CreationTimestamp = metav1.NewTime(s.now)
	s.pods = append(s.pods, p)
}

// count is what the controller does.
func (s *stage) count() {
	b, pods := s.pastBudgets[s.seenBudget].DeepCopy(), s.pastPods[s.seenPods]
	pending, _, _ := Pending(b.Status.DisruptedPods, pods, s.now)
	expected, desired, _ := Target(&b.Spec, int32(len(pods)), 0)
	healthy := Healthy(pods, pending)
	b.Status.DisruptionsAllowed, b.Status.CurrentHealthy, b.Status.DesiredHealthy, b.Status.DisruptedPods = Allowed(healthy, desired, expected), healthy, desired, pending
	b.Status.ObservedGeneration = b.Generation
	s.put(b)
}

func (s *stage) evict(i int) {
	before := s.pods[i].DeepCopy()
	b := s.budget.DeepCopy()
	if rapid.Bool().Draw(s.t, "looked at an old budget") {
		b = s.pastBudgets[rapid.IntRange(0, len(s.pastBudgets)-1).Draw(s.t, "which")].DeepCopy()
	}
	d := MayEvict(before, []*ppolicyv1.PodDisruptionBudget{b}, s.now)
	if d.Answer != Yes || d.Claim != nil && !s.put(d.Claim) {
		return
	}
	if d.Claim != nil && rapid.IntRange(0, 3).Draw(s.t, "dies before the deletion") == 0 {
		return
	}
	s.pods[i].DeletionTimestamp = new(metav1.NewTime(s.now))
}

func (s *stage) healthy() int { return int(Healthy(s.pods, nil)) }

// TestNeverBelow: whoever evicts whatever, with caches that lag and evictions that die half-way, and as long as no pod fails by itself,
// there are never fewer healthy pods than the budget wants.
func TestNeverBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int32Range(1, 4).Draw(t, "minAvailable")
		s := &stage{t: t, now: start, budget: newBudget(func(b *ppolicyv1.PodDisruptionBudget) {
			b.Spec.MinAvailable, b.Status = new(intstr.FromInt32(want)), ppolicyv1.PodDisruptionBudgetStatus{}
		})}
		s.put(s.budget)
		for range 5 {
			s.add(true)
		}
		s.record()
		evicted := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s.now = s.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "milliseconds")) * time.Millisecond)
			switch rapid.SampledFrom([]string{"evict", "evict", "count", "count", "see", "see", "end", "ready", "add"}).Draw(t, "event") {
			case "evict":
				before := s.healthy()
				s.evict(rapid.IntRange(0, len(s.pods)-1).Draw(t, "pod"))
				evicted += before - s.healthy()
			case "count":
				s.count()
			case "see":
				s.seenPods = rapid.IntRange(s.seenPods, len(s.pastPods)-1).Draw(t, "pods seen")
				s.seenBudget = rapid.IntRange(s.seenBudget, len(s.pastBudgets)-1).Draw(t, "budgets seen")
			case "end":
				s.pods = slices.DeleteFunc(s.pods, func(p *pcorev1.Pod) bool { return p.DeletionTimestamp != nil && len(s.pods) > 1 })
			case "ready":
				for _, p := range s.pods {
					setReady(p, true)
				}
			case "add":
				if len(s.pods) < 8 {
					s.add(false)
				}
			}
			s.record()
			if n := s.healthy(); n < int(want) {
				t.Fatalf("%d healthy pods, the budget wants %d", n, want)
			}
		}
		// Once everything is seen, what may go is what is too much.
		s.now = s.now.Add(DeletionTimeout + time.Second)
		s.seenPods, s.seenBudget = len(s.pastPods)-1, len(s.pastBudgets)-1
		s.count()
		if got := int(s.budget.Status.DisruptionsAllowed); got != s.healthy()-int(want) {
			t.Fatalf("%d disruptions allowed with %d healthy pods of %d", got, s.healthy(), want)
		}
	})
}
