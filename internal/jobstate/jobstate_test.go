// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package jobstate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// podBuilder makes pods for tests.
type podBuilder struct{ pod *pcorev1.Pod }

func aPod(name string) podBuilder {
	return podBuilder{&pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "test", UID: types.UID(name), CreationTimestamp: metav1.NewTime(start.Add(-time.Hour)),
	}}}
}

func (b podBuilder) phase(p corev1.PodPhase) podBuilder { b.pod.Status.Phase = p; return b }

func (b podBuilder) exit(container string, code int32, at time.Time) podBuilder {
	b.pod.Status.ContainerStatuses = append(b.pod.Status.ContainerStatuses, corev1.ContainerStatus{
		Name: container, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(at)}},
	})
	return b
}

func (b podBuilder) condition(kind corev1.PodConditionType, status corev1.ConditionStatus, at time.Time) podBuilder {
	b.pod.Status.Conditions = append(b.pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(at)})
	return b
}

func (b podBuilder) annotated(kv ...string) podBuilder {
	b.pod.Annotations = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		b.pod.Annotations[kv[i]] = kv[i+1]
	}
	return b
}

func (b podBuilder) finalizers(f ...string) podBuilder { b.pod.Finalizers = f; return b }

func (b podBuilder) deleted(at time.Time) podBuilder {
	t := metav1.NewTime(at)
	b.pod.DeletionTimestamp = &t
	return b
}

func (b podBuilder) Obj() *pcorev1.Pod { return b.pod }

func TestIndexes(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "0": "0", "0,1": "0,1", "0-2": "0-2", "2,0,1": "0-2", "1,2,3,5,7-8": "1-3,5,7,8",
		"0-99": "0-9", "12": "", "9-12": "9", "a,1,-3,4-b,2": "1,2", "5-3": "", "1-4,2-6": "1-6",
	} {
		if got := ParseIndexes(text, 10).String(); got != want {
			t.Errorf("%q reads as %q, want %q", text, got, want)
		}
	}
	s := ParseIndexes("1-3,7", 10)
	if diff := cmp.Diff([]int{0, 4, 5, 6, 8, 9}, s.Missing(100, 10)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{0, 4}, s.Missing(2, 10)); diff != "" {
		t.Error(diff)
	}
}

// TestIndexesAreSets: whatever is done to them, they hold what a set would, and their text reads back as the same set.
func TestIndexesAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const below = 40
		draw := func(name string) ([]int, Indexes, map[int]bool) {
			list := rapid.SliceOf(rapid.IntRange(0, below-1)).Draw(t, name)
			set := map[int]bool{}
			for _, i := range list {
				set[i] = true
			}
			return list, IndexesOf(list...), set
		}
		_, a, inA := draw("a")
		_, b, inB := draw("b")
		before := a.String()
		both := a.Union(b)
		if a.String() != before {
			t.Fatal("a union changed the set")
		}
		common, missing := 0, []int(nil)
		for i := range below {
			if both.Has(i) != (inA[i] || inB[i]) || a.Has(i) != inA[i] {
				t.Fatalf("index %d of %s and %s", i, a, b)
			}
			if inA[i] && inB[i] {
				common++
			}
			if !inA[i] {
				missing = append(missing, i)
			}
		}
		if a.Common(b) != common || a.Len() != len(inA) || !slices.Equal(a.Missing(below, below), missing) {
			t.Fatalf("common %d, length %d, missing %v of %s and %s", a.Common(b), a.Len(), a.Missing(below, below), a, b)
		}
		if again := ParseIndexes(a.String(), below).String(); again != a.String() {
			t.Fatalf("%s reads back as %s", a, again)
		}
	})
}

func TestIsFailed(t *testing.T) {
	for what, test := range map[string]struct {
		pod          podBuilder
		failed, ends bool
	}{
		"running":                        {aPod("a").phase(corev1.PodRunning), false, false},
		"failed":                         {aPod("a").phase(corev1.PodFailed), true, true},
		"succeeded":                      {aPod("a").phase(corev1.PodSucceeded).deleted(start), false, false},
		"deleted and running":            {aPod("a").phase(corev1.PodRunning).deleted(start).finalizers(NodeFinalizer), true, false},
		"deleted, and its node is gone":  {aPod("a").phase(corev1.PodRunning).deleted(start).finalizers(batchv1.JobTrackingFinalizer), true, true},
		"deleted before it was anywhere": {aPod("a").phase(corev1.PodPending).deleted(start).finalizers(batchv1.JobTrackingFinalizer), true, true},
	} {
		if got := IsFailed(test.pod.Obj(), false); got != test.failed {
			t.Errorf("%s: failed is %t", what, got)
		}
		if got := IsFailed(test.pod.Obj(), true); got != test.ends {
			t.Errorf("%s, once it has ended: failed is %t", what, got)
		}
	}
}

func TestMatchFailure(t *testing.T) {
	onCodes := func(op batchv1.PodFailurePolicyOnExitCodesOperator, container *string, codes ...int32) *batchv1.PodFailurePolicyOnExitCodesRequirement {
		return &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: op, ContainerName: container, Values: codes}
	}
	policy := &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
		{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: onCodes(batchv1.PodFailurePolicyOnExitCodesOpIn, new("main"), 42, 43)},
		{Action: batchv1.PodFailurePolicyActionFailIndex, OnExitCodes: onCodes(batchv1.PodFailurePolicyOnExitCodesOpIn, nil, 7)},
		{Action: batchv1.PodFailurePolicyActionCount, OnExitCodes: onCodes(batchv1.PodFailurePolicyOnExitCodesOpNotIn, nil, 1, 2)},
	}}
	for what, test := range map[string]struct {
		pod  podBuilder
		want Failure
	}{
		"no rule fits":            {aPod("a").exit("main", 1, start), Failure{}},
		"success is no failure":   {aPod("a").exit("main", 0, start), Failure{}},
		"a condition":             {aPod("a").exit("main", 42, start).condition(corev1.DisruptionTarget, corev1.ConditionTrue, start), Failure{Action: "Ignore", Message: "Pod test/a has condition DisruptionTarget matching Ignore rule at index 0"}},
		"a condition that is off": {aPod("a").exit("main", 1, start).condition(corev1.DisruptionTarget, corev1.ConditionFalse, start), Failure{}},
		"a code of its container": {aPod("a").exit("side", 0, start).exit("main", 43, start), Failure{"FailJob", "Container main for pod test/a failed with exit code 43 matching FailJob rule at index 1"}},
		"a code of another one":   {aPod("a").exit("side", 42, start), Failure{"Count", "Container side for pod test/a failed with exit code 42 matching Count rule at index 3"}},
		"any container":           {aPod("a").exit("side", 7, start), Failure{"FailIndex", "Container side for pod test/a failed with exit code 7 matching FailIndex rule at index 2"}},
	} {
		got := MatchFailure(policy, test.pod.Obj())
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if got.Counts() != (got.Action != "Ignore") {
			t.Errorf("%s: counts is %t", what, got.Counts())
		}
	}
	if got := MatchFailure(nil, aPod("a").exit("main", 42, start).Obj()); got != (Failure{}) {
		t.Errorf("without a policy: %+v", got)
	}
}

func TestMatchSuccess(t *testing.T) {
	rule := func(indexes string, count int32) batchv1.SuccessPolicyRule {
		out := batchv1.SuccessPolicyRule{}
		if indexes != "" {
			out.SucceededIndexes = &indexes
		}
		if count > 0 {
			out.SucceededCount = &count
		}
		return out
	}
	for what, test := range map[string]struct {
		rules []batchv1.SuccessPolicyRule
		done  string
		want  string
	}{
		"nothing done":               {[]batchv1.SuccessPolicyRule{rule("", 1)}, "", ""},
		"a count":                    {[]batchv1.SuccessPolicyRule{rule("", 2)}, "0,5", "Matched rules at index 0"},
		"a count that isn't reached": {[]batchv1.SuccessPolicyRule{rule("", 3)}, "0,5", ""},
		"all of some":                {[]batchv1.SuccessPolicyRule{rule("1-2,4", 0)}, "0-2,4,5", "Matched rules at index 0"},
		"not all of them":            {[]batchv1.SuccessPolicyRule{rule("1-2,4", 0)}, "0-2,5", ""},
		"enough of some":             {[]batchv1.SuccessPolicyRule{rule("1-2,4", 2)}, "0-2,5", "Matched rules at index 0"},
		"the second rule":            {[]batchv1.SuccessPolicyRule{rule("9", 0), rule("", 1)}, "0", "Matched rules at index 1"},
		"indexes that don't exist":   {[]batchv1.SuccessPolicyRule{rule("20-30", 0)}, "0-9", ""},
	} {
		got, met := MatchSuccess(&batchv1.SuccessPolicy{Rules: test.rules}, 10, ParseIndexes(test.done, 10))
		if got != test.want || met != (test.want != "") {
			t.Errorf("%s: %q, %t", what, got, met)
		}
	}
}

func TestFinishedAt(t *testing.T) {
	sidecar := aPod("sidecar").exit("main", 0, start)
	sidecar.pod.Spec.InitContainers = []corev1.Container{{Name: "log", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}, {Name: "init"}}
	sidecar.pod.Status.InitContainerStatuses = aPod("").exit("log", 0, start.Add(time.Second)).exit("init", 0, start.Add(time.Minute)).pod.Status.ContainerStatuses
	running := aPod("running").exit("main", 0, start).condition(corev1.PodReady, corev1.ConditionFalse, start.Add(3*time.Second))
	running.pod.Status.ContainerStatuses = append(running.pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: "other"})
	graceful := aPod("deleted").deleted(start)
	graceful.pod.DeletionGracePeriodSeconds = new(int64(5))
	for what, test := range map[string]struct {
		pod  podBuilder
		want time.Time
	}{
		"the last container":                  {aPod("a").exit("main", 0, start).exit("other", 1, start.Add(2*time.Second)), start.Add(2 * time.Second)},
		"sidecars count, init containers not": {sidecar, start.Add(time.Second)},
		"one hasn't ended: the readiness":     {running, start.Add(3 * time.Second)},
		"deleted":                             {graceful, start.Add(-5 * time.Second)},
		"nothing known":                       {aPod("a"), start.Add(-time.Hour)},
	} {
		if got := FinishedAt(test.pod.Obj()); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", what, got, test.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	pod := func(name string, second int) *pcorev1.Pod {
		return aPod(name).phase(corev1.PodFailed).exit("main", 1, at(second)).Obj()
	}
	b := Backoff{}
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		b = b.Next(nil, []*pcorev1.Pod{pod(fmt.Sprint("p", i), i)})
		if got := b.Wait(at(i)); got != want*time.Second {
			t.Errorf("after %d failures the pause is %s, want %ds", i+1, got, want)
		}
		if again := b.Next(nil, []*pcorev1.Pod{pod(fmt.Sprint("p", i), i)}); again.Wait(at(i)) != b.Wait(at(i)) {
			t.Error("looking twice at a failure counts it twice")
		}
	}
	if got := b.Wait(at(7 + 601)); got != 0 {
		t.Errorf("after the pause there are %s left", got)
	}
	b = b.Next([]*pcorev1.Pod{aPod("ok").phase(corev1.PodSucceeded).exit("main", 0, at(100)).Obj()}, []*pcorev1.Pod{pod("early", 90), pod("late", 110)})
	if got := b.Wait(at(110)); got != 10*time.Second {
		t.Errorf("after a success and one failure the pause is %s", got)
	}
	counted := []*pcorev1.Pod{
		pod("a", 1), aPod("b").phase(corev1.PodSucceeded).exit("main", 0, at(2)).Obj(), pod("c", 3), pod("d", 4),
		aPod("tracked").phase(corev1.PodFailed).exit("main", 1, at(5)).finalizers(batchv1.JobTrackingFinalizer).Obj(),
		aPod("dropped").phase(corev1.PodFailed).exit("main", 143, at(6)).deleted(at(5)).Obj(),
	}
	if got := BackoffOf(counted).Wait(at(4)); got != 20*time.Second {
		t.Errorf("what the pods tell makes a pause of %s", got)
	}
	last := aPod("x").exit("main", 1, at(0)).annotated(batchv1.JobIndexFailureCountAnnotation, "1", batchv1.JobIndexIgnoredFailureCountAnnotation, "1").Obj()
	if got := IndexWait(last, at(0)); got != 40*time.Second {
		t.Errorf("an index that failed three times waits %s", got)
	}
	if got := IndexWait(nil, at(0)); got != 0 {
		t.Errorf("an index that never failed waits %s", got)
	}
}

func TestAnnotations(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "17": 17, "-1": NoIndex, "x": NoIndex, "": NoIndex} {
		if got := Index(aPod("a").annotated(batchv1.JobCompletionIndexAnnotation, text).Obj()); got != want {
			t.Errorf("index %q is %d", text, got)
		}
	}
	counted, ignored := IndexFailures(aPod("a").annotated(batchv1.JobIndexFailureCountAnnotation, "-2", batchv1.JobIndexIgnoredFailureCountAnnotation, "99999999999").Obj())
	if counted != 0 || ignored != 0 {
		t.Errorf("nonsense counts as %d and %d", counted, ignored)
	}
}
