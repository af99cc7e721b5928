// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// model is an API server with a history, and a cache that shows the state after some prefix of it, as a watch does.
type model struct {
	t       *rapid.T
	scheme  *runtime.Scheme
	truth   client.WithWatch
	history []change
	// cached is the cache's content, seen how much of the history it shows.
	cached map[string]client.Object
	seen   int
	// budget is how many writes the controller makes before it dies.
	budget int
	r      *Reconciler
	uids   int
	clock  time.Time
	// images are those that the user may choose.
	images []string
	// byHand are the pods that the controller itself deleted.
	byHand map[types.UID]bool
	// acting says that it is the controller that writes.
	acting bool
	mu     sync.Mutex
}

// change is a state of an object, or its end.
type change struct {
	key string
	obj client.Object
	end bool
}

var errCrash = errors.New("the controller died")

const (
	agentFinalizer = "test/agent"
	// badImage is one whose pods never become ready.
	badImage = "bad"
)

func keyOf(obj client.Object, name string) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", obj), "*v1.") + " " + name
}

func newModel(t *rapid.T, set *pappsv1.StatefulSet) *model {
	m := &model{t: t, scheme: runtime.NewScheme(), cached: map[string]client.Object{}, budget: 1 << 30, byHand: map[types.UID]bool{}, clock: testNow}
	for _, add := range []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme, pstoragev1.AddToScheme} {
		m.must(add(m.scheme))
	}
	m.truth = fake.NewClientBuilder().WithScheme(m.scheme).
		WithStatusSubresource(&pappsv1.StatefulSet{}, &pcorev1.Pod{}, &pcorev1.PersistentVolumeClaim{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
				m.mu.Lock()
				m.uids++
				obj.SetUID(types.UID(fmt.Sprint("uid-", m.uids)))
				m.mu.Unlock()
				if pod, ok := obj.(*pcorev1.Pod); ok {
					pod.Finalizers = []string{agentFinalizer} // as if placed at once
				}
				return m.write(ctx, c, obj, func() error {
					if err := c.Create(ctx, obj, opts...); err != nil {
						return err
					}
					m.checkCreation(obj)
					return nil
				})
			},
			Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
				return m.write(ctx, c, obj, func() error {
					m.checkDeletion(obj)
					return c.Delete(ctx, obj, opts...)
				})
			},
			Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
				return m.write(ctx, c, obj, func() error { return c.Update(ctx, obj, opts...) })
			},
			Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
				return m.write(ctx, c, obj, func() error { return c.Patch(ctx, obj, patch, opts...) })
			},
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
				return m.write(ctx, c, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
			},
		}).Build()
	m.must(m.truth.Create(context.Background(), set))
	m.restart()
	return m
}

// write carries a write out, and adds what came of it to the history.
func (m *model) write(ctx context.Context, c client.Reader, obj client.Object, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.acting {
		if m.budget <= 0 {
			return errCrash
		}
		m.budget--
	}
	name := obj.GetName()
	if err := do(); err != nil {
		return err
	}
	state, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		m.t.Fatalf("%T is no object", obj)
	}
	err := c.Get(ctx, client.ObjectKey{Namespace: obj.GetNamespace(), Name: name}, state)
	m.history = append(m.history, change{key: keyOf(obj, name), obj: state, end: apierrors.IsNotFound(err)})
	return nil
}

// view is the pod of that ordinal as far as the controller can know it: what the cache shows, and what it did itself.
func (m *model) view(ordinal int) *pcorev1.Pod {
	pod, ok := m.cached[keyOf(&pcorev1.Pod{}, podName("db", ordinal))].(*pcorev1.Pod)
	if !ok || m.byHand[pod.UID] {
		return nil
	}
	return pod
}

func (m *model) seemsUp(ordinal int) bool {
	pod := m.view(ordinal)
	return pod != nil && pod.DeletionTimestamp == nil && isReady(pod)
}

// checkCreation: no pod is made before its claims are there and, in order, before all of its predecessors are ready.
func (m *model) checkCreation(obj client.Object) {
	pod, ok := obj.(*pcorev1.Pod)
	if !ok || !m.acting {
		return
	}
	set := m.cachedSet()
	s, _ := readSettings(&set.Spec)
	ordinal := ordinalOf("db", pod.Name)
	if s.ordered {
		for i := s.start; i < ordinal; i++ {
			if !m.seemsUp(i) {
				m.t.Fatalf("%s was made while db-%d isn't ready", pod.Name, i)
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		var claim pcorev1.PersistentVolumeClaim
		if err := m.truth.Get(context.Background(), client.ObjectKey{Namespace: "test", Name: v.PersistentVolumeClaim.ClaimName}, &claim); err != nil {
			m.t.Fatalf("%s was made before its claim: %v", pod.Name, err)
		}
	}
}

// checkDeletion: an update takes no more pods down than it may.
func (m *model) checkDeletion(obj client.Object) {
	pod, ok := obj.(*pcorev1.Pod)
	if !ok || !m.acting {
		return
	}
	set := m.cachedSet()
	s, _ := readSettings(&set.Spec)
	ordinal := ordinalOf("db", pod.Name)
	wasUp := m.seemsUp(ordinal)
	m.byHand[pod.UID] = true
	if ordinal < s.start || ordinal >= s.end() || !wasUp {
		return
	}
	down := 0
	for i := s.start; i < s.end(); i++ {
		if !m.seemsUp(i) {
			down++
		}
	}
	if down > s.maxUnavailable {
		m.t.Fatalf("deleting %s takes %d pods down; %d may be", pod.Name, down, s.maxUnavailable)
	}
}

func (m *model) cachedSet() *pappsv1.StatefulSet {
	set, ok := m.cached[keyOf(&pappsv1.StatefulSet{}, "db")].(*pappsv1.StatefulSet)
	if !ok {
		m.t.Fatal("the cache has no set")
	}
	return set
}

// see lets the cache show n more events, and the watch handlers tell about ended objects.
func (m *model) see(n int) {
	for ; n > 0 && m.seen < len(m.history); n-- {
		e := m.history[m.seen]
		m.seen++
		if !e.end {
			m.cached[e.key] = e.obj
			continue
		}
		delete(m.cached, e.key)
		if ref := metav1.GetControllerOf(e.obj); ref != nil {
			m.r.pods.Own.Gone(ref.UID, e.obj.GetUID())
			m.r.revisions.Own.Gone(ref.UID, e.obj.GetUID())
		}
	}
}

// reads is the controller's client: it reads from the cache and writes to the API server.
type reads struct {
	client.Client
	m *model
}

func (r reads) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	found, ok := r.m.cached[keyOf(obj, key.Name)]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: fmt.Sprintf("%T", obj)}, key.Name)
	}
	switch to := obj.(type) {
	case *pappsv1.StatefulSet:
		found.(*pappsv1.StatefulSet).DeepCopyInto(to) //nolint:forcetypeassert // the key says the type
	case *pcorev1.PersistentVolumeClaim:
		found.(*pcorev1.PersistentVolumeClaim).DeepCopyInto(to) //nolint:forcetypeassert // the key says the type
	default:
		r.m.t.Fatalf("reading a %T", obj)
	}
	return nil
}

func (r reads) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	o := client.ListOptions{}
	o.ApplyOptions(options)
	for _, key := range slices.Sorted(maps.Keys(r.m.cached)) {
		obj := r.m.cached[key]
		if value, ok := o.FieldSelector.RequiresExactMatch(kube.ByController); ok && value != kube.ControllerIndex(obj)[0] {
			continue
		}
		switch to := list.(type) {
		case *pcorev1.PodList:
			if pod, ok := obj.(*pcorev1.Pod); ok {
				to.Items = append(to.Items, *pod.DeepCopy())
			}
		case *pappsv1.ControllerRevisionList:
			if rev, ok := obj.(*pappsv1.ControllerRevision); ok {
				to.Items = append(to.Items, *rev.DeepCopy())
			}
		default:
			r.m.t.Fatalf("listing a %T", list)
		}
	}
	return nil
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(reads{m.truth, m}, m.truth)
	m.r.now = func() time.Time { return m.clock }
	m.see(len(m.history))
}

func (m *model) reconcile() {
	m.acting = true
	defer func() { m.acting = false }()
	m.clock = m.clock.Add(time.Second)
	_, err := m.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "test", Name: "db"}})
	if err != nil && !errors.Is(err, errCrash) && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
		m.t.Fatalf("reconciling: %v", err)
	}
}

func (m *model) crash(writes int) {
	m.budget = writes
	m.reconcile()
	m.budget = 1 << 30
	m.restart()
}

func (m *model) pods() []*pcorev1.Pod {
	var list pcorev1.PodList
	m.must(m.truth.List(context.Background(), &list))
	var out []*pcorev1.Pod
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) set() *pappsv1.StatefulSet {
	var set pappsv1.StatefulSet
	m.must(m.truth.Get(context.Background(), types.NamespacedName{Namespace: "test", Name: "db"}, &set))
	return &set
}

// edit changes the spec, as a user does.
func (m *model) edit(edit func(*pappsv1.StatefulSet)) {
	set := m.set()
	edit(set)
	set.Generation++
	m.must(m.truth.Update(context.Background(), set))
}

func (m *model) setPhase(pod *pcorev1.Pod, phase corev1.PodPhase, ready corev1.ConditionStatus) {
	if workload.IsTerminal(pod) || ready == corev1.ConditionTrue && pod.Spec.Containers[0].Image == badImage {
		return // what has ended doesn't come back, and what is bad never becomes ready
	}
	at := metav1.NewTime(m.clock)
	pod.Status.Phase = phase
	if pod.Status.StartTime == nil {
		pod.Status.StartTime = &at
	}
	if since, was := workload.ReadySince(pod); !since.IsZero() && was == (ready == corev1.ConditionTrue) {
		at = since
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: at}}
	m.must(m.truth.Status().Update(context.Background(), pod))
}

func (m *model) end(pod *pcorev1.Pod) {
	if pod.DeletionTimestamp != nil {
		pod.Finalizers = nil
		m.must(m.truth.Update(context.Background(), pod))
	}
}

// step lets one thing happen.
func (m *model) step() {
	what := rapid.SampledFrom([]string{
		"reconcile", "reconcile", "reconcile", "see", "see", "see", "crash", "delete", "end", "end", "ready", "ready", "ready", "unready", "fail", "image", "size",
	}).Draw(m.t, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return
	case "see":
		m.see(rapid.IntRange(1, 6).Draw(m.t, "events"))
		return
	case "crash":
		m.crash(rapid.IntRange(0, 5).Draw(m.t, "writes before the crash"))
		return
	case "image":
		image := rapid.SampledFrom(m.images).Draw(m.t, "image")
		m.edit(func(set *pappsv1.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = image })
		return
	case "size":
		size := rapid.Int32Range(0, 5).Draw(m.t, "size")
		m.edit(func(set *pappsv1.StatefulSet) { set.Spec.Replicas = &size })
		return
	}
	pods := m.pods()
	if len(pods) == 0 {
		return
	}
	pod := pods[rapid.IntRange(0, len(pods)-1).Draw(m.t, "pod")]
	switch what {
	case "delete":
		m.must(m.truth.Delete(context.Background(), pod))
	case "end":
		m.end(pod)
	case "ready":
		m.setPhase(pod, corev1.PodRunning, corev1.ConditionTrue)
	case "unready":
		m.setPhase(pod, corev1.PodRunning, corev1.ConditionFalse)
	case "fail":
		m.setPhase(pod, corev1.PodFailed, corev1.ConditionFalse)
	}
}

// settle lets everything go well from here on.
func (m *model) settle() {
	for range 60 {
		m.see(len(m.history))
		m.reconcile()
		for _, pod := range m.pods() {
			if pod.DeletionTimestamp != nil {
				m.end(pod)
			} else if !isReady(pod) {
				m.setPhase(pod, corev1.PodRunning, corev1.ConditionTrue)
			}
		}
	}
}

// TestSafeAndConvergent: with a cache that lags, pods that fail, are deleted and become unready, a spec that changes, and a controller that
// dies between any two writes: no pod is started before its claims are there and its predecessors are ready, no update takes down more than
// maxUnavailable, and when the world is good again, the set becomes what its spec says, even if some pods are of a revision that never works.
func TestSafeAndConvergent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "test", Generation: 1}}
		set.Spec.Replicas = new(rapid.Int32Range(0, 5).Draw(t, "replicas"))
		set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}
		set.Spec.Template.Labels = map[string]string{"app": "db"}
		set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "a"}}
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{testTemplate("data", "1Gi")}
		set.Spec.RevisionHistoryLimit = new(rapid.Int32Range(0, 2).Draw(t, "history"))
		set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: rapid.Int32Range(0, 2).Draw(t, "start")}
		if rapid.Bool().Draw(t, "parallel") {
			parallel(set)
		}
		partition := rapid.SampledFrom([]int32{0, 0, 1, 3}).Draw(t, "partition")
		rolling(partition, intstr.FromInt32(rapid.Int32Range(1, 3).Draw(t, "maxUnavailable")))(set)
		m := newModel(t, set)
		m.images = []string{"a", "b", "c"}
		if partition == 0 {
			m.images = append(m.images, badImage) // below a partition, a bad revision stays for as long as the partition does
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			m.step()
		}
		if m.set().Spec.Template.Spec.Containers[0].Image == badImage {
			m.edit(func(set *pappsv1.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = "a" })
		}
		m.settle()
		m.checkDone()
	})
}

func (m *model) checkDone() {
	set := m.set()
	s, _ := readSettings(&set.Spec)
	images := map[string]string{}
	for _, pod := range m.pods() {
		images[pod.Name] = pod.Spec.Containers[0].Image
		ordinal := ordinalOf("db", pod.Name)
		if ordinal < s.start || ordinal >= s.end() {
			m.t.Fatalf("%s is still there", pod.Name)
		}
		if ordinal >= s.updateFrom && pod.Spec.Containers[0].Image != set.Spec.Template.Spec.Containers[0].Image {
			m.t.Fatalf("%s runs %s, not %s", pod.Name, pod.Spec.Containers[0].Image, set.Spec.Template.Spec.Containers[0].Image)
		}
	}
	if len(images) != s.replicas {
		m.t.Fatalf("pods %v, wanted are %d", images, s.replicas)
	}
	if set.Status.ReadyReplicas != int32(s.replicas) || set.Status.ObservedGeneration != set.Generation {
		m.t.Fatalf("status %+v", set.Status)
	}
	var revs pappsv1.ControllerRevisionList
	m.must(m.truth.List(context.Background(), &revs))
	if n, most := len(revs.Items), 2+int(s.history)+s.replicas; n > most {
		m.t.Fatalf("%d revisions, at most %d are needed", n, most)
	}
}
