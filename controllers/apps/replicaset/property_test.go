// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/kube"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// model is an API server with a history, and a cache that shows the state after some prefix of it, as a watch does.
type model struct {
	t       *rapid.T
	scheme  *runtime.Scheme
	truth   client.WithWatch
	history []event
	// cached is the cache's content, seen how much of the history it shows.
	cached map[string]client.Object
	seen   int
	// budget is how many writes the controller makes before it dies.
	budget int
	r      *Reconciler
	uids   int
	// mu lets the reconciler's parallel writers in one by one.
	mu sync.Mutex
}

// event is a state of an object, or its end.
type event struct {
	key string
	obj client.Object
	end bool
}

var errCrash = errors.New("the controller died")

func newModel(t *rapid.T, want int32) *model {
	m := &model{t: t, scheme: runtime.NewScheme(), cached: map[string]client.Object{}, budget: 1 << 30}
	for _, add := range []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme} {
		if err := add(m.scheme); err != nil {
			t.Fatal(err)
		}
	}
	m.truth = m.builder().WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			m.mu.Lock()
			m.uids++
			obj.SetUID(types.UID(fmt.Sprint("uid-", m.uids)))
			m.mu.Unlock()
			if pod, ok := obj.(*pcorev1.Pod); ok {
				pod.Finalizers = []string{"test/agent"} // as if placed at once
			}
			return m.write(ctx, c, obj, func() error { return c.Create(ctx, obj, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return m.write(ctx, c, obj, func() error { return c.Delete(ctx, obj, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.Update(ctx, obj, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	}).Build()
	rs := &pappsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "test", Generation: 1}}
	rs.Spec.Replicas = &want
	rs.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	rs.Spec.Template.Labels = map[string]string{"app": "web"}
	if err := m.truth.Create(context.Background(), rs); err != nil {
		t.Fatal(err)
	}
	m.restart()
	return m
}

func (m *model) builder() *fake.ClientBuilder {
	return fake.NewClientBuilder().WithScheme(m.scheme).
		WithStatusSubresource(&pappsv1.ReplicaSet{}, &pcorev1.Pod{}).
		WithIndex(&pcorev1.Pod{}, kube.ByController, kube.ControllerIndex).
		WithIndex(&pappsv1.ReplicaSet{}, kube.ByController, kube.ControllerIndex)
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
	m.history = append(m.history, event{key: fmt.Sprintf("%T %s", obj, obj.GetName()), obj: state, end: apierrors.IsNotFound(err)})
	return nil
}

// see lets the cache show n more events, and the watch handler tell about ended pods.
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
			m.r.Pods.Own.Gone(ref.UID, e.obj.GetUID())
		}
	}
}

// split is the controller's client: it reads from the cache and writes to the API server.
type split struct {
	client.Client
	reads client.Reader
}

func (s split) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return s.reads.Get(ctx, key, obj, opts...)
}

func (s split) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return s.reads.List(ctx, list, opts...)
}

// cacheReader reads from what the cache shows at the moment.
type cacheReader struct{ m *model }

func (c cacheReader) client() client.Reader {
	b := c.m.builder()
	for _, obj := range c.m.cached {
		b = b.WithObjects(obj.DeepCopyObject().(client.Object)) //nolint:forcetypeassert // it was one
	}
	return b.Build()
}

func (c cacheReader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	return c.client().Get(ctx, key, obj, opts...)
}

func (c cacheReader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.client().List(ctx, list, opts...)
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(split{m.truth, cacheReader{m}}, m.truth)
	m.see(len(m.history))
}

func (m *model) reconcile() {
	_, err := m.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "test", Name: "web"}})
	if err != nil && !errors.Is(err, errCrash) {
		m.t.Fatalf("reconciling: %v", err)
	}
}

func (m *model) pods() []*pcorev1.Pod {
	var list pcorev1.PodList
	if err := m.truth.List(context.Background(), &list); err != nil {
		m.t.Fatal(err)
	}
	var out []*pcorev1.Pod
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
}

func (m *model) active() []*pcorev1.Pod {
	var out []*pcorev1.Pod
	for _, p := range m.pods() {
		if workload.IsActive(p) {
			out = append(out, p)
		}
	}
	return out
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// step lets one thing happen beside the controller.
func (m *model) step() {
	ctx := context.Background()
	pods := m.pods()
	what := rapid.SampledFrom([]string{"reconcile", "reconcile", "see", "see", "crash", "delete", "end", "ready", "fail"}).Draw(m.t, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return
	case "see":
		m.see(rapid.IntRange(1, 4).Draw(m.t, "events"))
		return
	case "crash":
		m.budget = rapid.IntRange(0, 5).Draw(m.t, "writes before the crash")
		m.reconcile()
		m.budget = 1 << 30
		m.restart()
		return
	}
	if len(pods) == 0 {
		return
	}
	pod := pods[rapid.IntRange(0, len(pods)-1).Draw(m.t, "pod")]
	if workload.IsTerminal(pod) && what == "ready" {
		return // what has ended doesn't come back
	}
	switch what {
	case "delete":
		m.must(m.truth.Delete(ctx, pod))
	case "end":
		if pod.DeletionTimestamp != nil {
			pod.Finalizers = nil
			m.must(m.truth.Update(ctx, pod))
		}
	case "ready":
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		m.must(m.truth.Status().Update(ctx, pod))
	case "fail":
		pod.Status.Phase = corev1.PodFailed
		m.must(m.truth.Status().Update(ctx, pod))
	}
}

// TestNoPodIsDoubled: with a cache that lags, pods that fail or are deleted, and a controller that dies between any two writes, there
// are never more active pods than wanted, and in the end there are as many.
func TestNoPodIsDoubled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int32Range(0, 6).Draw(t, "want")
		m := newModel(t, want)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.step()
			if n := len(m.active()); n > int(want) {
				t.Fatalf("%d active pods, wanted are %d", n, want)
			}
		}
		for range 4 {
			m.see(len(m.history))
			m.reconcile()
		}
		if n := len(m.active()); n != int(want) {
			t.Fatalf("%d active pods in the end, wanted are %d", n, want)
		}
	})
}

// TestScalingDownNeverOvershoots: when the size shrinks once, as many pods stay as wanted, however often it is looked at.
func TestScalingDownNeverOvershoots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, 6)
		m.reconcile()
		m.see(len(m.history))
		ctx := context.Background()
		var rs pappsv1.ReplicaSet
		m.must(m.truth.Get(ctx, types.NamespacedName{Namespace: "test", Name: "web"}, &rs))
		want := rapid.Int32Range(0, 6).Draw(t, "want")
		rs.Spec.Replicas = &want
		rs.Generation++
		m.must(m.truth.Update(ctx, &rs))
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"reconcile", "see", "ready", "end"}).Draw(t, "event") {
			case "reconcile":
				m.reconcile()
			case "see":
				m.see(1)
			case "ready":
				for _, pod := range m.active() {
					if rapid.Bool().Draw(t, "this one") {
						pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: rapid.SampledFrom([]corev1.ConditionStatus{"True", "False"}).Draw(t, "status")}}
						m.must(m.truth.Status().Update(ctx, pod))
					}
				}
			case "end":
				for _, pod := range m.pods() {
					if pod.DeletionTimestamp != nil {
						pod.Finalizers = nil
						m.must(m.truth.Update(ctx, pod))
						break
					}
				}
			}
			if n := len(m.active()); n < int(want) {
				t.Fatalf("%d active pods, wanted are %d", n, want)
			}
		}
	})
}
