// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pbatchv1 "github.com/pinnace-dev/pinnace/api/batch/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/jobstate"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// model is an API server with a history, and a cache that shows the state after some prefix of it, as a watch does. Jobs and pods come
// over watches of their own, so each kind lags by itself.
type model struct {
	t       *rapid.T
	truth   client.WithWatch
	history map[string][]change
	cached  map[string]client.Object
	seen    map[string]int
	// budget is how many writes the controller makes before it dies.
	budget int
	r      *Reconciler
	uids   int
	clock  time.Time
	// mu lets the reconciler's parallel writers in one by one.
	mu sync.Mutex

	// ends are the pods that ended or were deleted while they had the finalizer: each of them has to be counted once.
	ends map[types.UID]bool
	// succeeded are those that succeeded without having been deleted before, by index or node where the Job has them.
	succeeded map[string][]types.UID
	made      int
	// finished is the number of pods when the Job was finished.
	finished int
}

// change is a state of an object, or its end.
type change struct {
	key string
	obj client.Object
	end bool
}

var errCrash = errors.New("the controller died")

const placeholder = "test"

var jobKey = types.NamespacedName{Namespace: placeholder, Name: "work"}

func newModel(t *rapid.T, job *pbatchv1.Job, nodes int) *model {
	m := &model{
		t: t, budget: 1 << 30, clock: time.Now().Truncate(time.Second), finished: -1,
		history: map[string][]change{}, cached: map[string]client.Object{}, seen: map[string]int{},
		ends: map[types.UID]bool{}, succeeded: map[string][]types.UID{},
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{pcorev1.AddToScheme, pbatchv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	m.truth = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&pbatchv1.Job{}, &pcorev1.Pod{}).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return m.write(ctx, c, obj, func() error {
				m.uids++
				obj.SetUID(types.UID(fmt.Sprintf("uid-%03d", m.uids)))
				obj.SetCreationTimestamp(metav1.NewTime(m.clock))
				if _, ok := obj.(*pcorev1.Pod); ok {
					obj.SetFinalizers(append(slices.Clone(obj.GetFinalizers()), jobstate.NodeFinalizer)) // as if placed at once
					m.made++
				}
				return c.Create(ctx, obj, opts...)
			})
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return m.write(ctx, c, obj, func() error { return c.Delete(ctx, obj, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.Update(ctx, obj, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return m.write(ctx, c, obj, func() error {
				err := c.Patch(ctx, obj, patch, opts...)
				if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown { // the fake client's way to say that a test failed
					return apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, obj.GetName(), nil)
				}
				return err
			})
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	}).Build()
	job.Namespace, job.Name, job.Generation = jobKey.Namespace, jobKey.Name, 1
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main"}}
	m.must(m.truth.Create(context.Background(), job))
	for i := range nodes {
		m.must(m.truth.Create(context.Background(), &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}}))
	}
	m.restart()
	return m
}

// write carries a write out, and adds what came of it to the history.
func (m *model) write(ctx context.Context, c client.Reader, obj client.Object, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.budget <= 0 {
		return errCrash
	}
	m.budget--
	if err := do(); err != nil {
		return err
	}
	state, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		m.t.Fatalf("%T is no object", obj)
	}
	err := c.Get(ctx, client.ObjectKeyFromObject(obj), state)
	kind := fmt.Sprintf("%T", obj)
	m.history[kind] = append(m.history[kind], change{key: kind + " " + obj.GetName(), obj: state, end: apierrors.IsNotFound(err)})
	if pod, ok := state.(*pcorev1.Pod); ok && err == nil && jobstate.IsTracked(pod) && (workload.IsTerminal(pod) || pod.DeletionTimestamp != nil) {
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

// see lets the cache show n more events of one kind, and the watch handler tell about ended objects.
func (m *model) see(kind string, n int) {
	for ; n > 0 && m.seen[kind] < len(m.history[kind]); n-- {
		e := m.history[kind][m.seen[kind]]
		m.seen[kind]++
		if !e.end {
			m.cached[e.key] = e.obj
			continue
		}
		delete(m.cached, e.key)
		if ref := metav1.GetControllerOf(e.obj); ref != nil {
			m.r.pods.Own.Gone(ref.UID, e.obj.GetUID())
		}
	}
}

func (m *model) seeAll() {
	for kind := range m.history {
		m.see(kind, len(m.history[kind]))
	}
}

// split is the controller's client: it reads from the cache and writes to the API server.
type split struct {
	client.Client
	m *model
}

func (s split) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	found, ok := s.m.cached[fmt.Sprintf("%T %s", obj, key.Name)]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	switch to := obj.(type) {
	case *pbatchv1.Job:
		*to = *found.DeepCopyObject().(*pbatchv1.Job) //nolint:forcetypeassert // the key says so
	case *pcorev1.Pod:
		*to = *found.DeepCopyObject().(*pcorev1.Pod) //nolint:forcetypeassert // the key says so
	}
	return nil
}

func (s split) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	o := client.ListOptions{}
	o.ApplyOptions(opts)
	var items []runtime.Object
	for key, obj := range s.m.cached {
		if strings.TrimSuffix(fmt.Sprintf("%T", list), "List") != strings.Fields(key)[0] {
			continue
		}
		if o.FieldSelector != nil && !o.FieldSelector.Matches(fields.Set{kube.ByController: kube.ControllerIndex(obj)[0]}) {
			continue
		}
		items = append(items, obj.DeepCopyObject())
	}
	return meta.SetList(list, items)
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(split{m.truth, m}, m.truth)
	m.r.now = func() time.Time { return m.clock }
	m.seeAll()
}

func (m *model) reconcile() {
	_, err := m.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: jobKey})
	if err != nil && !errors.Is(err, errCrash) {
		m.t.Fatalf("reconciling: %v", err)
	}
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) job() *pbatchv1.Job {
	var job pbatchv1.Job
	m.must(m.truth.Get(context.Background(), jobKey, &job))
	return &job
}

func (m *model) pods() []*pcorev1.Pod {
	var list pcorev1.PodList
	m.must(m.truth.List(context.Background(), &list))
	var out []*pcorev1.Pod
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Name < out[b].Name })
	return out
}

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
	m.must(m.truth.Status().Update(context.Background(), pod))
}

// leave is the agent letting a deleted pod go, with or without having said how it ended.
func (m *model) leave(pod *pcorev1.Pod) {
	if pod.DeletionTimestamp == nil || !slices.Contains(pod.Finalizers, jobstate.NodeFinalizer) {
		return
	}
	pod.Finalizers = slices.DeleteFunc(pod.Finalizers, func(f string) bool { return f == jobstate.NodeFinalizer })
	m.must(m.truth.Update(context.Background(), pod))
}

// change changes the Job's spec, as a user does.
func (m *model) change(change func(*pbatchv1.JobSpec)) {
	job := m.job()
	change(&job.Spec)
	job.Generation++
	m.must(m.truth.Update(context.Background(), job))
}

// check looks at what must hold at every moment.
func (m *model) check() {
	job := m.job()
	active, at := 0, map[string]int{}
	for _, pod := range m.pods() {
		if workload.IsActive(pod) {
			active++
			at[place(pod)]++
		}
	}
	// Pods of the time before somebody shrank the Job may still be there.
	if most := (&scope{job: job}).parallelism(); job.Generation == 1 && active > most {
		m.t.Fatalf("%d pods are active, %d are allowed", active, most)
	}
	for place, n := range at {
		if n > 1 {
			m.t.Fatalf("%d pods are active at %s", n, place)
		}
	}
	for place, uids := range m.succeeded {
		if len(uids) > 1 {
			m.t.Fatalf("%s succeeded %d times: %v", place, len(uids), uids)
		}
	}
	u := job.Status.UncountedTerminatedPods
	if u != nil && len(u.Succeeded)+len(u.Failed) > mostUncounted {
		m.t.Fatalf("%d pods are named in the status", len(u.Succeeded)+len(u.Failed))
	}
	if isFinished(&job.Status) {
		if m.finished < 0 {
			m.finished = m.made
		}
		if m.made > m.finished {
			m.t.Fatalf("a pod was made after the Job had finished")
		}
	}
}

// checkCounts looks at what must hold when all has come to rest.
func (m *model) checkCounts() {
	job := m.job()
	if !isFinished(&job.Status) {
		m.t.Fatalf("the Job doesn't finish: %+v; pods %s", job.Status, m.describe())
	}
	for _, pod := range m.pods() {
		if jobstate.IsTracked(pod) {
			m.t.Fatalf("pod %s keeps its finalizer", pod.Name)
		}
		if workload.IsActive(pod) {
			m.t.Fatalf("pod %s runs on", pod.Name)
		}
	}
	if u := job.Status.UncountedTerminatedPods; len(u.Succeeded)+len(u.Failed) > 0 {
		m.t.Fatalf("uncounted pods are left: %v", u)
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
			m.t.Fatalf("%d nodes are done, %d pods succeeded", len(job.Status.CompletedNodes), succeeded)
		}
	case job.Generation > 1 && indexed(job): // indexes beyond the end don't count
	case !ignored && total != len(m.ends):
		m.t.Fatalf("%d succeeded and %d failed, but %d pods ended", job.Status.Succeeded, job.Status.Failed, len(m.ends))
	case int(job.Status.Succeeded) < succeeded && !killed:
		m.t.Fatalf("%d succeeded by the status, but %d did", job.Status.Succeeded, succeeded)
	}
	if n, ok := (&scope{job: job}).completions(); ok && job.Generation == 1 && !perNode(job) && isTrue(&job.Status, batchv1.JobComplete) && int(job.Status.Succeeded) < n && job.Spec.SuccessPolicy == nil {
		m.t.Fatalf("complete with %d of %d", job.Status.Succeeded, n)
	}
}

func (m *model) describe() string {
	var out []string
	for _, pod := range m.pods() {
		out = append(out, fmt.Sprintf("%s %s deleted=%t %v", pod.Name, pod.Status.Phase, pod.DeletionTimestamp != nil, pod.Finalizers))
	}
	return strings.Join(out, "; ")
}
