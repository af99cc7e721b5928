// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// scene is a Job with pods, as a test wants it.
type scene struct{ *scope }

func aJob(completions, parallelism int32) scene {
	job := &pbatchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "work", Namespace: placeholder, UID: "u", Generation: 1}}
	if completions >= 0 {
		job.Spec.Completions = &completions
	}
	job.Spec.Parallelism, job.Spec.BackoffLimit = &parallelism, new(int32(6))
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	began := metav1.NewTime(start.Add(-time.Minute))
	job.Status.StartTime = &began
	return scene{&scope{job: job, selector: labels.Everything(), now: start}}
}

func (s scene) indexed() scene {
	s.job.Spec.CompletionMode = new(batchv1.IndexedCompletion)
	return s
}

func (s scene) perIndex(limit int32) scene {
	s.job.Spec.BackoffLimit, s.job.Spec.BackoffLimitPerIndex = nil, &limit
	return s.indexed()
}

func (s scene) spec(change func(*pbatchv1.JobSpec)) scene { change(&s.job.Spec); return s }

func (s scene) status(change func(*pbatchv1.JobStatus)) scene { change(&s.job.Status); return s }

func (s scene) on(start ...string) scene {
	s.job.Spec.Mode, s.job.Spec.Completions, s.job.Spec.Parallelism = pbatchv1.JobOncePerNode, nil, nil
	s.nodes = nodeView{start: start, stay: map[string]bool{}}
	for _, n := range start {
		s.nodes.stay[n] = true
	}
	return s
}

// with adds a pod: words say its place (an index, a node, or a name), its phase, and what else is true of it.
func (s scene) with(words string) scene {
	pod := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: placeholder, UID: types.UID(fmt.Sprint("pod-", len(s.pods))), CreationTimestamp: metav1.NewTime(start.Add(-time.Hour)),
		Finalizers: []string{batchv1.JobTrackingFinalizer, jobstate.NodeFinalizer},
	}}
	fields := strings.Fields(words)
	pod.Name = fields[0]
	switch {
	case indexed(s.job):
		pod.Annotations = map[string]string{batchv1.JobCompletionIndexAnnotation: fields[0]}
		pod.Name = "index-" + fields[0] + "-" + strconv.Itoa(len(s.pods))
	case perNode(s.job):
		pod.Spec.NodeName = fields[0]
		pod.Name = "on-" + fields[0]
	}
	drop := func(f string) {
		pod.Finalizers = slices.DeleteFunc(pod.Finalizers, func(have string) bool { return have == f })
	}
	for _, word := range fields[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "running", "failed", "succeeded":
			pod.Status.Phase = map[string]corev1.PodPhase{"running": corev1.PodRunning, "failed": corev1.PodFailed, "succeeded": corev1.PodSucceeded}[key]
			code := map[string]int32{"failed": 1}[key]
			if key != "running" {
				pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(start)}}}}
			}
		case "code":
			code, _ := strconv.Atoi(value)
			pod.Status.ContainerStatuses[0].State.Terminated.ExitCode = int32(code)
		case "ago":
			ago, _ := time.ParseDuration(value)
			pod.Status.ContainerStatuses[0].State.Terminated.FinishedAt = metav1.NewTime(start.Add(-ago))
		case "restarts":
			n, _ := strconv.Atoi(value)
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", RestartCount: int32(n)}}
		case "failures":
			pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = value
		case "ready":
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		case "deleted":
			at := metav1.NewTime(start)
			pod.DeletionTimestamp = &at
		case "gone":
			drop(jobstate.NodeFinalizer)
		case "untracked":
			drop(batchv1.JobTrackingFinalizer)
		}
	}
	s.pods = append(s.pods, pod)
	return s
}

// tell is a decision in words.
func tell(d decision) string {
	var out []string
	if d.end != nil {
		out = append(out, fmt.Sprintf("%s %s", d.end.condition, d.end.reason))
	}
	create := map[string]int{}
	var places []string
	for _, want := range d.create {
		place := want.node
		if want.index != jobstate.NoIndex {
			place = strconv.Itoa(want.index)
			if want.failures+want.ignored > 0 {
				place += fmt.Sprintf("(%d,%d)", want.failures, want.ignored)
			}
		}
		if create[place] == 0 {
			places = append(places, place)
		}
		create[place]++
	}
	for _, place := range places {
		if place == "" {
			out = append(out, fmt.Sprintf("+%d", create[place]))
		} else {
			out = append(out, "+"+place)
		}
	}
	for _, pod := range d.drop {
		out = append(out, "-"+pod.Name)
	}
	for _, pod := range d.kill {
		out = append(out, "x"+pod.Name)
	}
	if d.wait > 0 {
		out = append(out, "wait "+d.wait.String())
	}
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	failJob := &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}},
		{Action: batchv1.PodFailurePolicyActionIgnore, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{2}}},
		{Action: batchv1.PodFailurePolicyActionFailIndex, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{3}}},
	}}
	ended := func(s *pbatchv1.JobSpec) { s.PodReplacementPolicy = new(batchv1.Failed) }
	for what, test := range map[string]struct {
		scene scene
		want  string
	}{
		"nothing there":                        {aJob(3, 2), "+2"},
		"no more than remain":                  {aJob(3, 5).with("a succeeded").with("b running"), "+1"},
		"nothing to do":                        {aJob(0, 5), "SuccessCriteriaMet CompletionsReached"},
		"no parallelism":                       {aJob(3, 0).with("a running"), "-a"},
		"done":                                 {aJob(2, 2).with("a succeeded").with("b succeeded untracked").status(func(s *pbatchv1.JobStatus) { s.Succeeded = 1 }), "SuccessCriteriaMet CompletionsReached"},
		"done, and one runs on":                {aJob(1, 2).with("a succeeded").with("b running"), "SuccessCriteriaMet CompletionsReached -b"},
		"too many: the least advanced goes":    {aJob(9, 2).with("a running ready").with("b running").with("c running ready"), "-b"},
		"one that can't be counted goes first": {aJob(9, 1).with("a running").with("b running ready untracked"), "-b"},
		"a pause after a failure":              {aJob(3, 1).with("a failed"), "wait 10s"},
		"after the pause":                      {aJob(3, 1).with("a failed ago=10s"), "+1"},
		"a pause grows":                        {aJob(3, 1).with("a failed").with("b failed ago=10s"), "wait 20s"},
		"too many failures":                    {aJob(3, 2).spec(func(s *pbatchv1.JobSpec) { s.BackoffLimit = new(int32(1)) }).with("a failed").with("b failed").with("c running"), "FailureTarget BackoffLimitExceeded xc"},
		"failures that were counted count":     {aJob(3, 2).status(func(s *pbatchv1.JobStatus) { s.Failed = 6 }).with("a failed"), "FailureTarget BackoffLimitExceeded"},
		"restarts in place count": {aJob(1, 1).spec(func(s *pbatchv1.JobSpec) {
			s.Template.Spec.RestartPolicy, s.BackoffLimit = corev1.RestartPolicyOnFailure, new(int32(2))
		}).with("a running restarts=2"), "FailureTarget BackoffLimitExceeded xa"},
		"a restart is not two": {aJob(1, 1).spec(func(s *pbatchv1.JobSpec) {
			s.Template.Spec.RestartPolicy, s.BackoffLimit = corev1.RestartPolicyOnFailure, new(int32(2))
		}).with("a running restarts=1"), ""},
		"before the deadline":         {aJob(1, 1).spec(func(s *pbatchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(90)) }).with("a running"), "wait 30s"},
		"past the deadline":           {aJob(1, 1).spec(func(s *pbatchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(60)) }).with("a running"), "FailureTarget DeadlineExceeded xa"},
		"no deadline while suspended": {aJob(1, 1).spec(func(s *pbatchv1.JobSpec) { s.ActiveDeadlineSeconds, s.Suspend = new(int64(1)), new(true) }).with("a running"), "-a"},
		"a decision stands": {aJob(1, 1).status(func(s *pbatchv1.JobStatus) {
			s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded"}}
		}).with("a running"), "FailureTarget DeadlineExceeded xa"},
		"a deleted pod is replaced at once": {aJob(1, 1).status(func(s *pbatchv1.JobStatus) {
			s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Failed: []types.UID{"pod-0"}}
		}).with("a running deleted"), "+1"},
		"a deleted pod is replaced when it ended": {aJob(1, 1).spec(ended).with("a running deleted"), ""},
		"a pod that never ran has ended": {aJob(1, 1).spec(ended).status(func(s *pbatchv1.JobStatus) {
			s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Failed: []types.UID{"pod-0"}}
		}).with("a deleted gone"), "+1"},
		"a queue runs as many as it may":           {aJob(-1, 3).with("a running"), "+2"},
		"a queue that has had a success":           {aJob(-1, 3).with("a running").with("b succeeded"), ""},
		"a queue that is empty":                    {aJob(-1, 3).with("a failed").with("b succeeded"), "SuccessCriteriaMet CompletionsReached"},
		"a policy that fails the job":              {aJob(3, 2).spec(func(s *pbatchv1.JobSpec) { s.PodFailurePolicy = failJob }).spec(ended).with("a failed code=42").with("b running"), "FailureTarget PodFailurePolicy xb"},
		"a failure that is ignored":                {aJob(3, 1).spec(func(s *pbatchv1.JobSpec) { s.PodFailurePolicy, s.BackoffLimit = failJob, new(int32(0)) }).spec(ended).with("a failed code=2 ago=1m"), "+1"},
		"what was dropped is no failure":           {aJob(3, 1).spec(func(s *pbatchv1.JobSpec) { s.PodFailurePolicy = failJob }).spec(ended).with("a failed code=42 deleted untracked"), "+1"},
		"indexes":                                  {aJob(4, 2).indexed().with("1 running"), "+0"},
		"indexes that are done":                    {aJob(6, 4).indexed().status(func(s *pbatchv1.JobStatus) { s.CompletedIndexes = "0-2" }).with("4 succeeded"), "+3 +5"},
		"indexes twice":                            {aJob(4, 4).indexed().with("1 running").with("1 running ready"), "-index-1-0"},
		"an index that is done runs on":            {aJob(4, 4).indexed().status(func(s *pbatchv1.JobStatus) { s.CompletedIndexes = "1" }).with("1 running"), "-index-1-0"},
		"indexes beyond the end":                   {aJob(1, 1).indexed().with("0 running").with("3 running"), "-index-3-1"},
		"an index that ends":                       {aJob(2, 2).indexed().spec(ended).with("0 running deleted").with("1 running"), ""},
		"an index is tried again, with its count":  {aJob(2, 2).perIndex(3).with("0 failed failures=1 ago=21s").with("1 running"), "+0(2,0)"},
		"a pause of an index holds nobody else up": {aJob(3, 1).perIndex(3).with("0 failed"), "+1 wait 10s"},
		"an index is lost":                         {aJob(2, 2).perIndex(1).with("0 failed failures=1").with("1 running"), ""},
		"indexes are lost and the rest is done":    {aJob(2, 2).perIndex(0).with("0 failed").with("1 succeeded"), "FailureTarget FailedIndexes"},
		"more indexes are lost than allowed":       {aJob(3, 3).perIndex(0).spec(func(s *pbatchv1.JobSpec) { s.MaxFailedIndexes = new(int32(0)) }).with("0 failed").with("1 running"), "FailureTarget MaxFailedIndexesExceeded xindex-1-1"},
		"a policy that fails the index":            {aJob(2, 2).perIndex(5).spec(func(s *pbatchv1.JobSpec) { s.PodFailurePolicy = failJob }).spec(ended).with("0 failed code=3").with("1 running"), ""},
		"an ignored failure of an index":           {aJob(1, 1).perIndex(0).spec(func(s *pbatchv1.JobSpec) { s.PodFailurePolicy = failJob }).spec(ended).with("0 failed code=2 ago=10s"), "+0(0,1)"},
		"enough indexes are done": {aJob(3, 3).indexed().spec(func(s *pbatchv1.JobSpec) {
			s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: new(int32(1))}}}
		}).with("1 succeeded").with("2 running"), "SuccessCriteriaMet SuccessPolicy -index-2-1"},
		"failure comes before success": {aJob(3, 3).indexed().spec(func(s *pbatchv1.JobSpec) {
			s.BackoffLimit = new(int32(0))
			s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: new(int32(1))}}}
		}).with("1 succeeded").with("2 failed"), "FailureTarget BackoffLimitExceeded"},
		"a pod on each node":          {aJob(0, 0).on("a", "b"), "+a +b"},
		"no node":                     {aJob(0, 0).on(), ""},
		"some nodes are done":         {aJob(0, 0).on("a", "b", "c").status(func(s *pbatchv1.JobStatus) { s.CompletedNodes = []string{"a"} }).with("b running"), "+c"},
		"all nodes are done":          {aJob(0, 0).on("a", "b").status(func(s *pbatchv1.JobStatus) { s.CompletedNodes = []string{"a", "x"} }).with("b succeeded"), "SuccessCriteriaMet CompletionsReached"},
		"a node has left":             {aJob(0, 0).on("a").with("x running").with("a running"), "-on-x"},
		"nodes one by one":            {aJob(0, 0).on("a", "b", "c").spec(func(s *pbatchv1.JobSpec) { s.Parallelism = new(int32(1)) }).with("b running"), ""},
		"a job that is being deleted": {aJob(3, 3).status(func(*pbatchv1.JobStatus) {}).with("a running").deleted(), ""},
	} {
		if diff := cmp.Diff(test.want, tell(makePlan(test.scene.scope))); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

func (s scene) deleted() scene {
	at := metav1.NewTime(start)
	s.job.DeletionTimestamp = &at
	return s
}

// TestAccount: what is written before finalizers go, and after.
func TestAccount(t *testing.T) {
	for what, test := range map[string]struct {
		scene scene
		want  string
	}{
		"pods that ended are named first": {
			aJob(9, 9).with("a succeeded").with("b failed").with("c running"),
			"active 1, succeeded 0, failed 0, uncounted [pod-0] [pod-1], release a b",
		},
		"then counted": {
			aJob(9, 9).status(func(s *pbatchv1.JobStatus) {
				s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"pod-0", "vanished"}, Failed: []types.UID{"pod-1"}}
			}).with("a succeeded untracked").with("b failed"),
			"active 0, succeeded 2, failed 0, uncounted [] [pod-1], release b",
		},
		"an index needs no name": {
			aJob(9, 9).indexed().status(func(s *pbatchv1.JobStatus) { s.CompletedIndexes = "0" }).with("2 succeeded").with("1 succeeded").with("0 succeeded").with("3 failed"),
			"active 0, succeeded 3, failed 0, indexes 0-2, uncounted [] [pod-3], release index-0-2 index-1-1 index-2-0 index-3-3",
		},
		"an index keeps its failed pod until the next is there": {
			aJob(2, 2).perIndex(3).with("0 failed failures=1").with("1 failed").with("1 running failures=1"),
			"active 1, succeeded 0, failed 0, indexes , uncounted [] [pod-1], release index-1-1",
		},
		"an ignored failure isn't counted": {
			aJob(9, 9).spec(func(s *pbatchv1.JobSpec) {
				s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
					Action: batchv1.PodFailurePolicyActionIgnore, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{1}},
				}}}
			}).with("a failed"),
			"active 0, succeeded 0, failed 0, uncounted [] [], release a",
		},
		"a node needs no name": {
			aJob(0, 0).on("a", "b").with("b succeeded").with("a running"),
			"active 1, succeeded 1, failed 0, nodes [b] of 2, uncounted [] [], release on-b",
		},
		"who waits for the end of a pod counts it then": {
			aJob(9, 9).spec(func(s *pbatchv1.JobSpec) { s.PodReplacementPolicy = new(batchv1.Failed) }).with("a running deleted").with("b running deleted gone"),
			"active 0, succeeded 0, failed 0, uncounted [] [pod-1], release b",
		},
		"a job that is deleted lets all go": {
			aJob(9, 9).with("a running").with("b succeeded").deleted(),
			"active 1, succeeded 0, failed 0, uncounted [pod-1] [], release a b",
		},
	} {
		d := makePlan(test.scene.scope)
		d.end = nil
		a := takeAccount(test.scene.scope, &d)
		u := a.status.UncountedTerminatedPods
		got := fmt.Sprintf("active %d, succeeded %d, failed %d, ", a.status.Active, a.status.Succeeded, a.status.Failed)
		if indexed(test.scene.job) {
			got += "indexes " + a.status.CompletedIndexes + ", "
		}
		if perNode(test.scene.job) {
			got += fmt.Sprintf("nodes %v of %d, ", a.status.CompletedNodes, *a.status.MatchingNodes)
		}
		got += fmt.Sprintf("uncounted %v %v, release", u.Succeeded, u.Failed)
		for _, pod := range a.release {
			got += " " + pod.Name
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// TestFailedIndexes: an index is lost with the pods that failed, not with those that are ended because the Job has failed.
func TestFailedIndexes(t *testing.T) {
	s := aJob(3, 3).perIndex(0).with("0 failed").with("1 running deleted").with("2 running").scope
	for _, test := range []struct {
		end  *ending
		want string
	}{{nil, "0,1"}, {failure(batchv1.JobReasonMaxFailedIndexesExceeded, ""), "0"}} {
		a := takeAccount(s, &decision{end: test.end})
		if got := *a.status.FailedIndexes; got != test.want {
			t.Errorf("with the end %+v: %q, want %q", test.end, got, test.want)
		}
	}
}

// TestUncountedIsBounded: however many pods end at a time, the status names no more than it has room for.
func TestUncountedIsBounded(t *testing.T) {
	s := aJob(2000, 2000)
	for i := range 1200 {
		s.with(fmt.Sprintf("p%04d succeeded", i))
	}
	d := makePlan(s.scope)
	a := takeAccount(s.scope, &d)
	if n := len(a.status.UncountedTerminatedPods.Succeeded); n != mostUncounted || len(a.release) != mostUncounted {
		t.Errorf("%d are named and %d released, want %d", n, len(a.release), mostUncounted)
	}
}

func TestTemplates(t *testing.T) {
	s := aJob(12, 2).perIndex(1)
	s.job.Name = strings.Repeat("n", 61)
	s.job.Spec.Template.Labels = map[string]string{"app": "a", "job-name": "other"}
	s.job.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main"}, {Name: "knows", Env: []corev1.EnvVar{{Name: indexVariable, Value: "mine"}}}}
	names := map[string]bool{}
	name := indexName(s.job.Name, s.job.UID, 11, names)
	names[name] = true
	second := indexName(s.job.Name, s.job.UID, 11, names)
	if len(name) > 63 || !strings.Contains(name, "-11-") || second == name || indexName(s.job.Name, s.job.UID, 11, nil) != name {
		t.Errorf("names are %s and %s", name, second)
	}
	got := makeTemplates(s.job, []wantedPod{{name: name, index: 11, failures: 1}})[name]
	want := map[string]string{
		"app": "a", "job-name": s.job.Name, batchv1.JobNameLabel: s.job.Name, "controller-uid": "u", batchv1.ControllerUidLabel: "u",
		batchv1.JobCompletionIndexAnnotation: "11",
	}
	if diff := cmp.Diff(want, got.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{batchv1.JobCompletionIndexAnnotation: "11", batchv1.JobIndexFailureCountAnnotation: "1"}, got.Annotations); diff != "" {
		t.Error(diff)
	}
	if got.Spec.Hostname != s.job.Name+"-11" || got.Finalizers[0] != batchv1.JobTrackingFinalizer || len(got.Spec.Containers[0].Env) != 1 || len(got.Spec.Containers[1].Env) != 1 {
		t.Errorf("template %+v", got)
	}
	if len(s.job.Spec.Template.Spec.Containers[0].Env) > 0 || len(s.job.Spec.Template.Labels) != 2 {
		t.Error("the Job's own template was changed")
	}
	s.job.Spec.ManualSelector, s.job.Spec.Selector = new(true), &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
	selector, err := makeSelector(s.job)
	if err != nil || selector.String() != "app=a" || len(makeLabels(s.job)) > 0 {
		t.Errorf("selector %s, %v, labels %v", selector, err, makeLabels(s.job))
	}
	if node, _ := workload.TargetNode(&pcorev1.Pod{Spec: makeTemplates(aJob(0, 0).on("n").job, []wantedPod{{name: "x", index: jobstate.NoIndex, node: "n"}})["x"].Spec}); node != "n" {
		t.Errorf("the pod of a node is meant for %q", node)
	}
}
