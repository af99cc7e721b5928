// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/workload"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// model is a world with one Job and some nodes.
type model struct {
	*lagging.World
	r     *Reconciler
	clock time.Time

	// ends are the pods that ended or were deleted while they had the finalizer: each of them has to be counted once.
	ends map[types.UID]bool
	// succeeded are those that succeeded without having been deleted before, by index or node where the Job has them.
	succeeded map[string][]types.UID
	made      int
	// finished is the number of pods when the Job was finished.
	finished int
	// least is the fewest completions that were ever wanted. What is beyond them is forgotten, as upstream has it, and runs again when it is wanted again.
	least int32
}

const placeholder = "test"

var jobKey = types.NamespacedName{Namespace: placeholder, Name: "work"}

func newModel(t *rapid.T, job *pbatchv1.Job, nodes int) *model {
	m := &model{clock: time.Now().Truncate(time.Second), finished: -1, least: math.MaxInt32, ends: map[types.UID]bool{}, succeeded: map[string][]types.UID{}}
	m.World = lagging.New(t, lagging.Options{
		Schemes: []func(*runtime.Scheme) error{pcorev1.AddToScheme, pbatchv1.AddToScheme},
		Status:  []client.Object{&pbatchv1.Job{}, &pcorev1.Pod{}},
		Once:    []client.Object{&pcorev1.Pod{}},
		Now:     func() time.Time { return m.clock },
		Before: func(w lagging.Write) error {
			if pod, ok := w.Object.(*pcorev1.Pod); ok && w.Verb == lagging.Create {
				pod.Finalizers = append(slices.Clone(pod.Finalizers), jobstate.NodeFinalizer) // as if placed at once
			}
			return nil
		},
		After: m.note,
		Gone:  func(owner types.UID, obj client.Object) { m.r.pods.Own.Gone(owner, obj.GetUID()) },
	})
	job.Namespace, job.Name, job.Generation = jobKey.Namespace, jobKey.Name, 1
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main"}}
	m.Must(m.Truth.Create(context.Background(), job))
	for i := range nodes {
		m.Must(m.Truth.Create(context.Background(), &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}}))
	}
	m.restart()
	return m
}

// note counts the pods that were made and those that ended.
func (m *model) note(w lagging.Write) error {
	pod, ok := w.Object.(*pcorev1.Pod)
	if !ok {
		return nil
	}
	if w.Verb == lagging.Create {
		m.made++
	}
	if !w.Gone && jobstate.IsTracked(pod) && (workload.IsTerminal(pod) || pod.DeletionTimestamp != nil) {
		if pod.Status.Phase == corev1.PodSucceeded && !m.ends[pod.UID] {
			m.succeeded[place(pod)] = append(m.succeeded[place(pod)], pod.UID)
		}
		m.ends[pod.UID] = true
	}
	return nil
}

// place is the index or the node of a pod; its own name where it has none.
func place(pod *pcorev1.Pod) string {
	if i := jobstate.Index(pod); i != jobstate.NoIndex {
		return fmt.Sprint(i)
	}
	if node, ok := workload.TargetNode(pod); ok {
		return node
	}
	return string(pod.UID)
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(m.Client(), m.Live())
	m.r.now = func() time.Time { return m.clock }
	m.SeeAll()
}

func (m *model) reconcile() { m.Reconcile(m.r, jobKey) }

func (m *model) job() *pbatchv1.Job { return lagging.Get(m.World, jobKey, &pbatchv1.Job{}) }

// exit ends the containers of a pod.
func (m *model) exit(pod *pcorev1.Pod, code int32) {
	if workload.IsTerminal(pod) {
		return
	}
	pod.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		pod.Status.Phase = corev1.PodFailed
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(m.clock)},
	}}}
	m.Must(m.Truth.Status().Update(context.Background(), pod))
}

// leave is the agent letting a deleted pod go, with or without having said how it ended.
func (m *model) leave(pod *pcorev1.Pod) {
	if pod.DeletionTimestamp == nil || !slices.Contains(pod.Finalizers, jobstate.NodeFinalizer) {
		return
	}
	pod.Finalizers = slices.DeleteFunc(pod.Finalizers, func(f string) bool { return f == jobstate.NodeFinalizer })
	m.Must(m.Truth.Update(context.Background(), pod))
}

// change changes the Job's spec, as a user does.
func (m *model) change(change func(*pbatchv1.JobSpec)) {
	job := m.job()
	change(&job.Spec)
	job.Generation++
	m.Must(m.Truth.Update(context.Background(), job))
}

// check looks at what must hold at every moment.
func (m *model) check() {
	job := m.job()
	active, at := 0, map[string]int{}
	for _, pod := range m.Pods() {
		if workload.IsActive(pod) {
			active++
			at[place(pod)]++
		}
	}
	// Pods of the time before somebody shrank the Job may still be there.
	if most := (&scope{job: job}).parallelism(); job.Generation == 1 && active > most {
		m.T.Fatalf("%d pods are active, %d are allowed", active, most)
	}
	for place, n := range at {
		if n > 1 {
			m.T.Fatalf("%d pods are active at %s", n, place)
		}
	}
	if n := job.Spec.Completions; indexed(job) && n != nil {
		m.least = min(m.least, *n)
	}
	for place, uids := range m.succeeded {
		if index, err := strconv.Atoi(place); err == nil && index >= int(m.least) {
			continue
		}
		if len(uids) > 1 {
			m.T.Fatalf("%s succeeded %d times: %v", place, len(uids), uids)
		}
	}
	u := job.Status.UncountedTerminatedPods
	if u != nil && len(u.Succeeded)+len(u.Failed) > mostUncounted {
		m.T.Fatalf("%d pods are named in the status", len(u.Succeeded)+len(u.Failed))
	}
	if isFinished(&job.Status) {
		if m.finished < 0 {
			m.finished = m.made
		}
		if m.made > m.finished {
			m.T.Fatalf("a pod was made after the Job had finished")
		}
	}
}

// checkCounts looks at what must hold when all has come to rest.
func (m *model) checkCounts() {
	job := m.job()
	if !isFinished(&job.Status) {
		m.T.Fatalf("the Job doesn't finish: %+v; pods %s", job.Status, m.describe())
	}
	for _, pod := range m.Pods() {
		if jobstate.IsTracked(pod) {
			m.T.Fatalf("pod %s keeps its finalizer", pod.Name)
		}
		if workload.IsActive(pod) {
			m.T.Fatalf("pod %s runs on", pod.Name)
		}
	}
	if u := job.Status.UncountedTerminatedPods; len(u.Succeeded)+len(u.Failed) > 0 {
		m.T.Fatalf("uncounted pods are left: %v", u)
	}
	succeeded := 0
	for _, uids := range m.succeeded {
		succeeded += len(uids)
	}
	total := int(job.Status.Succeeded + job.Status.Failed)
	ignored := job.Spec.PodFailurePolicy != nil
	// What a failing Job kills has failed, even if it was just about to succeed.
	killed := isTrue(&job.Status, batchv1.JobFailed)
	switch {
	case perNode(job):
		if len(job.Status.CompletedNodes) < succeeded && !killed {
			m.T.Fatalf("%d nodes are done, %d pods succeeded", len(job.Status.CompletedNodes), succeeded)
		}
	case job.Generation > 1 && indexed(job): // indexes beyond the end don't count
	case !ignored && total != len(m.ends):
		m.T.Fatalf("%d succeeded and %d failed, but %d pods ended", job.Status.Succeeded, job.Status.Failed, len(m.ends))
	case int(job.Status.Succeeded) < succeeded && !killed:
		m.T.Fatalf("%d succeeded by the status, but %d did", job.Status.Succeeded, succeeded)
	}
	if n, ok := (&scope{job: job}).completions(); ok && job.Generation == 1 && !perNode(job) && isTrue(&job.Status, batchv1.JobComplete) && int(job.Status.Succeeded) < n && job.Spec.SuccessPolicy == nil {
		m.T.Fatalf("complete with %d of %d", job.Status.Succeeded, n)
	}
}

func (m *model) describe() string {
	var out []string
	for _, pod := range m.Pods() {
		out = append(out, fmt.Sprintf("%s %s deleted=%t %v", pod.Name, pod.Status.Phase, pod.DeletionTimestamp != nil, pod.Finalizers))
	}
	return strings.Join(out, "; ")
}
