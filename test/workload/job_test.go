// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/runtime/fake"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// annotationFailing lists the indexes, or with "node:" before them the nodes, whose pods end with the code of AnnotationExitCode; all
// others succeed. Without it every pod ends with that code.
const annotationFailing = "test.pinnace.dev/failing"

// runOut ends the containers of a running pod as its annotations say.
func (a *agent) runOut(ctx context.Context, pod *pcorev1.Pod) (ctrl.Result, error) {
	after, err := time.ParseDuration(pod.Annotations[fake.AnnotationExitAfter])
	if err != nil || len(pod.Status.ContainerStatuses) == 0 {
		return ctrl.Result{}, nil
	}
	began := pod.Status.ContainerStatuses[0].State.Running
	if began == nil {
		return ctrl.Result{}, nil
	}
	if left := time.Until(began.StartedAt.Add(after)); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	code, _ := strconv.ParseInt(pod.Annotations[fake.AnnotationExitCode], 10, 32)
	if failing, ok := pod.Annotations[annotationFailing]; ok {
		me := pod.Annotations[batchv1.JobCompletionIndexAnnotation]
		if me == "" {
			me = "node:" + pod.Spec.NodeName
		}
		if !slices.Contains(strings.Split(failing, ","), me) {
			code = 0
		}
	}
	return ctrl.Result{}, ignoreRace(a.exit(ctx, pod, int32(code)))
}

// end does what the real agent does with a pod that somebody waits for: it says how the containers ended before it lets the pod go.
func (a *agent) end(ctx context.Context, pod *pcorev1.Pod) error {
	if len(pod.Finalizers) < 2 || workload.IsTerminal(pod) {
		return nil
	}
	return a.exit(ctx, pod, 143)
}

func (a *agent) exit(ctx context.Context, pod *pcorev1.Pod, code int32) error {
	now := metav1.Now()
	phase, reason := corev1.PodSucceeded, "Completed"
	if code != 0 {
		phase, reason = corev1.PodFailed, "Error"
	}
	pod.Status.Phase = phase
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, FinishedAt: now},
	}}}
	pod.Status.Conditions = condition.Pod.Set(pod.Status.Conditions, condition.Condition{Type: string(corev1.PodReady), Status: corev1.ConditionFalse, Reason: "PodCompleted"}, now.Time)
	return a.client.Status().Update(ctx, pod)
}

// job makes a Job whose pods end at once.
func (w *world) job(name string, change ...func(*pbatchv1.Job)) *pbatchv1.Job {
	w.Helper()
	j := &pbatchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	j.Spec.Template = template(map[string]string{"app": name}, "image:1")
	j.Spec.Template.Annotations = map[string]string{fake.AnnotationExitAfter: "0s"}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	for _, c := range change {
		c(j)
	}
	w.must(w.Create(w.ctx, j))
	return j
}

// awaits waits until the Job is as test wants it.
func (w *world) awaits(j *pbatchv1.Job, what string, test func(*pbatchv1.Job) bool) {
	w.Helper()
	w.eventually("job "+j.Name+" "+what, func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(j), j); err != nil {
			return err
		}
		if j.Status.ObservedGeneration != j.Generation || !test(j) {
			return fmt.Errorf("status %+v", j.Status)
		}
		return nil
	})
}

func is(kind batchv1.JobConditionType) func(*pbatchv1.Job) bool {
	return func(j *pbatchv1.Job) bool {
		c, _ := condition.Job.Get(j.Status.Conditions, string(kind))
		return c.Status == corev1.ConditionTrue
	}
}

// verdict is the reason and message of the condition Ready.
func verdict(j *pbatchv1.Job) string {
	c, _ := condition.Job.Get(j.Status.Conditions, pcorev1.ConditionReady)
	return c.Reason + ": " + c.Message
}

// everyPod returns the pods of a Job, ended and deleted ones too.
func (w *world) everyPod(app string) []pcorev1.Pod {
	w.Helper()
	var list pcorev1.PodList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace), client.MatchingLabels{"app": app}))
	return list.Items
}

func (w *world) changeJob(j *pbatchv1.Job, change func(*pbatchv1.Job)) {
	w.Helper()
	w.eventually("the Job takes the change", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(j), j); err != nil {
			return err
		}
		change(j)
		return w.Update(w.ctx, j)
	})
}

// TestJobCompletes: the pods of a Job run, at most as many as it says at a time; each is counted once, and nothing is left that would
// keep them. A pod costs the Job's loop two writes, and its status one for each window. PINNACE_COMPLETIONS makes it larger; it then
// tells the rate.
func TestJobCompletes(t *testing.T) {
	y := &tally{count: map[string]int{}}
	w := newWorld(t, options{nodes: 4, wrap: y.wrap})
	n := int32(fromEnv("PINNACE_COMPLETIONS", 12))
	began := time.Now()
	j := w.job("sums", func(j *pbatchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = &n, new(max(4, n/10)) })
	w.awaits(j, "completes", is(batchv1.JobComplete))
	took := time.Since(began)
	t.Logf("%d completions in %s: %.0f pods/s; writes %v", n, took.Round(time.Millisecond), float64(n)/took.Seconds(), y.count)
	if creations, releases := y.get("create *v1.Pod"), y.get("patch *v1.Pod"); creations != int(n) || releases != int(n) {
		t.Errorf("%d creations and %d finalizers for %d completions", creations, releases, n)
	}
	if writes, most := y.get("update status *v1.Job"), 5+int(took/(300*time.Millisecond)); writes > most {
		t.Errorf("%d status writes in %s, at most %d are in the budget", writes, took, most)
	}
	if j.Status.Succeeded != n || j.Status.Failed != 0 || j.Status.Active != 0 || *j.Status.Terminating != 0 {
		t.Errorf("status %+v", j.Status)
	}
	if got, want := fmt.Sprint(j.Status.Columns["status"], " ", j.Status.Columns["completions"], " ", verdict(j)), fmt.Sprintf("Complete %d/%d CompletionsReached: %d of %d completions are reached.", n, n, n, n); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	if j.Status.StartTime == nil || j.Status.CompletionTime == nil || j.Status.Columns["duration"] == "" {
		t.Errorf("no times: %+v", j.Status)
	}
	pods := w.everyPod("sums")
	if len(pods) != int(n) {
		t.Errorf("%d pods were made for %d completions", len(pods), n)
	}
	for _, p := range pods {
		if slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) {
			t.Errorf("pod %s keeps the finalizer", p.Name)
		}
		if p.Labels[batchv1.ControllerUidLabel] != string(j.UID) || p.Labels[batchv1.JobNameLabel] != "sums" || p.Labels["job-name"] != "sums" {
			t.Errorf("pod %s has the labels %v", p.Name, p.Labels)
		}
	}
}

// TestIndexedJob: each index has its pod, which knows its index; indexes that fail are tried again, by themselves.
func TestIndexedJob(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	j := w.job("parts", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(5)), new(int32(5))
		j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
		j.Spec.BackoffLimitPerIndex = new(int32(0))
		j.Spec.Template.Annotations[fake.AnnotationExitCode] = "3"
		j.Spec.Template.Annotations[annotationFailing] = "1,3"
	})
	w.awaits(j, "fails", is(batchv1.JobFailed))
	if got, want := j.Status.CompletedIndexes+" and "+*j.Status.FailedIndexes, "0,2,4 and 1,3"; got != want {
		t.Errorf("indexes %s, want %s", got, want)
	}
	if j.Status.Succeeded != 3 || j.Status.Failed != 2 {
		t.Errorf("status %+v", j.Status)
	}
	if got := verdict(j); !strings.HasPrefix(got, "FailedIndexes: Job has failed indexes: container main of pod parts-") || !strings.HasSuffix(got, "ended with exit code 3.") {
		t.Errorf("it says %q", got)
	}
	seen := map[string]bool{}
	for _, p := range w.everyPod("parts") {
		i := p.Annotations[batchv1.JobCompletionIndexAnnotation]
		if seen[i] || p.Labels[batchv1.JobCompletionIndexAnnotation] != i || p.Spec.Hostname != "parts-"+i || !strings.HasPrefix(p.Name, "parts-"+i+"-") {
			t.Errorf("pod %s of index %s, host name %s, seen before: %t", p.Name, i, p.Spec.Hostname, seen[i])
		}
		seen[i] = true
		if env := p.Spec.Containers[0].Env; len(env) != 1 || env[0].Name != "JOB_COMPLETION_INDEX" || env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
			t.Errorf("pod %s has the variables %v", p.Name, env)
		}
	}
}

// TestFailurePolicy: a rule ends the whole Job at the first pod that it fits, and the running pods go and count as failed.
func TestFailurePolicy(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	j := w.job("strict", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(3)), new(int32(3))
		j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "2s"
		j.Spec.Template.Annotations[fake.AnnotationExitCode] = "42"
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action:      batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
		}}}
	})
	w.awaits(j, "fails", is(batchv1.JobFailed))
	if j.Status.Failed != 3 || j.Status.Active != 0 {
		t.Errorf("status %+v", j.Status)
	}
	if got := verdict(j); !strings.Contains(got, "PodFailurePolicy: Container main for pod "+w.namespace+"/strict-") || !strings.Contains(got, "failed with exit code 42 matching FailJob rule at index 0.") {
		t.Errorf("it says %q", got)
	}
	if c, _ := condition.Job.Get(j.Status.Conditions, string(batchv1.JobFailureTarget)); c.Status != corev1.ConditionTrue || c.Reason != "PodFailurePolicy" {
		t.Errorf("conditions %+v", j.Status.Conditions)
	}
}

// TestSuccessPolicy: the Job completes with the indexes that it asks for; the others go without a failure.
func TestSuccessPolicy(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	j := w.job("enough", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(4)), new(int32(4))
		j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
		j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: new("1-2"), SucceededCount: new(int32(1))}}}
	})
	w.awaits(j, "runs", func(j *pbatchv1.Job) bool { return j.Status.Ready != nil && *j.Status.Ready == 4 })
	w.eventually("index 2 succeeds", func() error {
		for _, p := range w.everyPod("enough") {
			if p.Annotations[batchv1.JobCompletionIndexAnnotation] == "2" {
				return w.agent.exit(w.ctx, &p, 0)
			}
		}
		return errNotYet
	})
	w.awaits(j, "completes", is(batchv1.JobComplete))
	c, _ := condition.Job.Get(j.Status.Conditions, string(batchv1.JobSuccessCriteriaMet))
	if j.Status.Succeeded != 1 || j.Status.Failed != 0 || j.Status.CompletedIndexes != "2" || c.Reason != "SuccessPolicy" || c.Message != "Matched rules at index 0" {
		t.Errorf("status %+v", j.Status)
	}
}

// TestSuspendedJob: a suspended Job has no pods; it runs when it is resumed, and stops when it is suspended again, at no cost.
func TestSuspendedJob(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	j := w.job("later", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism, j.Spec.Suspend = new(int32(2)), new(int32(2)), new(true)
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
	})
	w.awaits(j, "is suspended", is(batchv1.JobSuspended))
	if j.Status.StartTime != nil || len(w.everyPod("later")) > 0 || j.Status.Columns["status"] != "Suspended" {
		t.Errorf("status %+v", j.Status)
	}
	w.changeJob(j, func(j *pbatchv1.Job) { j.Spec.Suspend = new(false) })
	w.awaits(j, "runs", func(j *pbatchv1.Job) bool { return *j.Status.Ready == 2 && j.Status.StartTime != nil })
	w.changeJob(j, func(j *pbatchv1.Job) { j.Spec.Suspend = new(true) })
	w.awaits(j, "is suspended again", func(j *pbatchv1.Job) bool { return is(batchv1.JobSuspended)(j) && j.Status.StartTime == nil })
	w.eventually("its pods are gone", func() error {
		if n := len(w.everyPod("later")); n > 0 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	w.changeJob(j, func(j *pbatchv1.Job) {
		j.Spec.Suspend = new(false)
		j.Spec.Template.Spec.NodeSelector = nil
	})
	w.awaits(j, "runs again", func(j *pbatchv1.Job) bool { return *j.Status.Ready == 2 })
	for _, p := range w.pods("later") {
		w.must(w.agent.exit(w.ctx, &p, 0))
	}
	w.awaits(j, "completes", is(batchv1.JobComplete))
	if j.Status.Succeeded != 2 || j.Status.Failed != 0 {
		t.Errorf("status %+v", j.Status)
	}
}

// TestDeadlineAndTTL: a Job that takes too long fails, and what has finished goes when its time is up, its pods too.
func TestDeadlineAndTTL(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	j := w.job("slow", func(j *pbatchv1.Job) {
		j.Spec.ActiveDeadlineSeconds, j.Spec.TTLSecondsAfterFinished = new(int64(1)), new(int32(2))
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
	})
	w.awaits(j, "fails", is(batchv1.JobFailed))
	if c, _ := condition.Job.Get(j.Status.Conditions, string(batchv1.JobFailed)); c.Reason != "DeadlineExceeded" || j.Status.Failed != 1 {
		t.Errorf("status %+v", j.Status)
	}
	w.eventually("the Job and its pods are gone", func() error {
		if n := len(w.everyPod("slow")); n > 0 {
			return fmt.Errorf("%d pods", n)
		}
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(j), j); client.IgnoreNotFound(err) != nil || err == nil {
			return orNotYet(err)
		}
		return nil
	})
}

// TestDeletedJob: the pods of a Job that is deleted while it runs go with it.
func TestDeletedJob(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		name := "gone-" + strings.ToLower(string(policy))
		j := w.job(name, func(j *pbatchv1.Job) {
			j.Spec.Completions, j.Spec.Parallelism = new(int32(3)), new(int32(3))
			j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
		})
		w.awaits(j, "runs", func(j *pbatchv1.Job) bool { return j.Status.Ready != nil && *j.Status.Ready == 3 })
		w.must(w.Delete(w.ctx, j, client.PropagationPolicy(policy)))
		w.eventually("the pods are gone", func() error {
			if n := len(w.everyPod(name)); n > 0 {
				return fmt.Errorf("%d pods", n)
			}
			return nil
		})
	}
}

// TestElasticJob: completions and parallelism grow and shrink together.
func TestElasticJob(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	j := w.job("elastic", func(j *pbatchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = new(int32(2)), new(int32(2))
		j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
	})
	resize := func(n int32) {
		w.changeJob(j, func(j *pbatchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = &n, &n })
		w.awaits(j, "is resized", func(j *pbatchv1.Job) bool {
			return *j.Status.Ready == n && j.Status.Active == n && *j.Status.Terminating == 0
		})
	}
	resize(4)
	resize(1)
	pods := w.pods("elastic")
	if len(pods) != 1 || pods[0].Annotations[batchv1.JobCompletionIndexAnnotation] != "0" {
		t.Fatalf("%d pods are left, the first of index %s", len(pods), pods[0].Annotations[batchv1.JobCompletionIndexAnnotation])
	}
	w.must(w.agent.exit(w.ctx, &pods[0], 0))
	w.awaits(j, "completes", is(batchv1.JobComplete))
	if j.Status.CompletedIndexes != "0" || j.Status.Failed != 0 {
		t.Errorf("status %+v", j.Status)
	}
}

// TestRetries: a failed pod is replaced after a pause, and the Job says so; one failure too many ends it.
func TestRetries(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	j := w.job("flaky", func(j *pbatchv1.Job) { j.Spec.Template.Annotations[fake.AnnotationExitCode] = "1" })
	w.awaits(j, "waits", func(j *pbatchv1.Job) bool {
		return strings.HasPrefix(verdict(j), "BackOff: The next pod is made after a pause: container main of pod flaky-") && j.Status.Failed == 1
	})
	if n := len(w.everyPod("flaky")); n != 1 {
		t.Errorf("%d pods right after the first failure", n)
	}
	w.awaits(j, "tries again", func(j *pbatchv1.Job) bool { return j.Status.Failed == 2 })
	pods := w.everyPod("flaky")
	sort.Slice(pods, func(a, b int) bool { return pods[a].CreationTimestamp.Before(&pods[b].CreationTimestamp) })
	if pause := pods[1].CreationTimestamp.Sub(pods[0].CreationTimestamp.Time); pause < 9*time.Second {
		t.Errorf("the second pod was made %s after the first", pause)
	}
	w.changeJob(j, func(j *pbatchv1.Job) { j.Spec.BackoffLimit = new(int32(1)) })
	w.awaits(j, "fails", is(batchv1.JobFailed))
	if !strings.HasPrefix(verdict(j), "BackoffLimitExceeded: Job has reached the specified backoff limit: container main of pod flaky-") {
		t.Errorf("it says %q", verdict(j))
	}
}

// TestOncePerNode: every matching node gets a pod, one that joins later too, and one that leaves counts no longer.
func TestOncePerNode(t *testing.T) {
	w := newWorld(t, options{nodes: 3})
	j := w.job("everywhere", func(j *pbatchv1.Job) {
		j.Spec.Mode = pbatchv1.JobOncePerNode
		j.Spec.Template.Annotations[fake.AnnotationExitAfter] = "1h"
	})
	if j.Spec.Completions != nil || j.Spec.Parallelism != nil {
		t.Errorf("defaults were filled in: %+v", j.Spec)
	}
	w.awaits(j, "runs on three nodes", func(j *pbatchv1.Job) bool {
		return j.Status.Ready != nil && *j.Status.Ready == 3 && *j.Status.MatchingNodes == 3
	})
	on := func() map[string]pcorev1.Pod {
		out := map[string]pcorev1.Pod{}
		for _, p := range w.pods("everywhere") {
			out[p.Spec.NodeName] = p
		}
		return out
	}
	w.node(w.namespace+"-node-late", "4")
	w.awaits(j, "runs on the new node too", func(j *pbatchv1.Job) bool { return *j.Status.Ready == 4 && *j.Status.MatchingNodes == 4 })
	pods := on()
	if len(pods) != 4 {
		t.Fatalf("pods stand on %v", slices.Collect(maps.Keys(pods)))
	}
	leaver := w.namespace + "-node-0"
	w.must(w.Delete(w.ctx, &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: leaver}}))
	for node, p := range pods {
		if node != leaver {
			w.must(w.agent.exit(w.ctx, &p, 0))
		}
	}
	w.awaits(j, "completes", is(batchv1.JobComplete))
	want := []string{w.namespace + "-node-1", w.namespace + "-node-2", w.namespace + "-node-late"}
	if !slices.Equal(j.Status.CompletedNodes, want) || j.Status.Succeeded != 3 || j.Status.Failed != 0 || j.Status.Columns["completions"] != "3/3" {
		t.Errorf("status %+v", j.Status)
	}
}

// TestJobRefusals: what makes no sense is refused in one clear sentence. The schema oracle has the rest of the rules.
func TestJobRefusals(t *testing.T) {
	w := newWorld(t, options{})
	for what, change := range map[string]func(*pbatchv1.Job){
		"completions can't be written with mode OncePerNode": func(j *pbatchv1.Job) {
			j.Spec.Mode, j.Spec.Completions = pbatchv1.JobOncePerNode, new(int32(3))
		},
		"completionMode can't be Indexed with mode OncePerNode": func(j *pbatchv1.Job) {
			j.Spec.Mode, j.Spec.CompletionMode = pbatchv1.JobOncePerNode, new(batchv1.IndexedCompletion)
		},
		"completionMode Indexed needs completions": func(j *pbatchv1.Job) {
			j.Spec.CompletionMode, j.Spec.Parallelism = new(batchv1.IndexedCompletion), new(int32(2))
		},
	} {
		j := &pbatchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "odd", Namespace: w.namespace}}
		j.Spec.Template = template(map[string]string{"app": "odd"}, "image:1")
		j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		change(j)
		if err := w.Create(w.ctx, j); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want a refusal with %q, got %v", what, err)
		}
	}
}
