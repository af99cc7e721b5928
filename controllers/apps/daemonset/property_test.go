// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
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
	// reader reads the cache as it was when readerAt changes had been seen.
	reader   client.Reader
	readerAt int
	// budget is how many writes the controller makes before it dies.
	budget int
	// ahead is how far the controller's clock is ahead.
	ahead time.Duration
	r     *Reconciler
	uids  int
	// mu lets the reconciler's parallel writers in one by one.
	mu sync.Mutex
}

// change is a state of an object, or its end.
type change struct {
	key string
	obj client.Object
	end bool
}

var errCrash = errors.New("the controller died")

const agentFinalizer = "test/agent"

func newModel(t *rapid.T, nodes int, strategy appsv1.RollingUpdateDaemonSet) *model {
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
			obj.SetCreationTimestamp(metav1.NewTime(epoch)) // all in one second, as it may be
			m.mu.Unlock()
			return m.write(ctx, c, obj, func() error { return c.Create(ctx, obj, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
			return m.write(ctx, c, obj, func() error { return c.Delete(ctx, obj, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return m.write(ctx, c, obj, func() error { return c.Patch(ctx, obj, patch, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.Update(ctx, obj, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return m.write(ctx, c, obj, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	}).Build()
	set := &pappsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "net", Namespace: "test", Generation: 1}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "net"}}
	set.Spec.Template.Labels = map[string]string{"app": "net", "version": "1"}
	set.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &strategy}
	set.Spec.RevisionHistoryLimit = new(int32(1))
	m.must(m.truth.Create(context.Background(), set))
	for i := range nodes {
		m.must(m.truth.Create(context.Background(), makeNode(fmt.Sprint("node-", i))))
	}
	m.restart()
	return m
}

func (m *model) builder() *fake.ClientBuilder {
	return fake.NewClientBuilder().WithScheme(m.scheme).
		WithStatusSubresource(&pappsv1.DaemonSet{}, &pcorev1.Pod{}).
		WithIndex(&pcorev1.Pod{}, kube.ByController, kube.ControllerIndex).
		WithIndex(&pappsv1.ControllerRevision{}, kube.ByController, kube.ControllerIndex)
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
	m.history = append(m.history, change{key: fmt.Sprintf("%T %s", obj, obj.GetName()), obj: state, end: apierrors.IsNotFound(err)})
	return nil
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
		ref := metav1.GetControllerOf(e.obj)
		if ref == nil {
			continue
		}
		switch e.obj.(type) {
		case *pcorev1.Pod:
			m.r.pods.Own.Gone(ref.UID, e.obj.GetUID())
		case *pappsv1.ControllerRevision:
			m.r.revisions.Own.Gone(ref.UID, e.obj.GetUID())
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
	m := c.m
	if m.reader == nil || m.readerAt != m.seen {
		b := m.builder()
		for _, obj := range m.cached {
			b = b.WithObjects(obj.DeepCopyObject().(client.Object)) //nolint:forcetypeassert // it was one
		}
		m.reader, m.readerAt = b.Build(), m.seen
	}
	return m.reader
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
	m.r.now = func() time.Time { return time.Now().Add(m.ahead) }
	m.see(len(m.history))
}

func (m *model) reconcile() {
	_, err := m.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "test", Name: "net"}})
	if err != nil && !errors.Is(err, errCrash) {
		m.t.Fatalf("reconciling: %v", err)
	}
}

func (m *model) crash() {
	m.budget = rapid.IntRange(0, 5).Draw(m.t, "writes before the crash")
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

func (m *model) nodes() []*pcorev1.Node {
	var list pcorev1.NodeList
	m.must(m.truth.List(context.Background(), &list))
	var out []*pcorev1.Node
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
}

func (m *model) set() *pappsv1.DaemonSet {
	var set pappsv1.DaemonSet
	m.must(m.truth.Get(context.Background(), types.NamespacedName{Namespace: "test", Name: "net"}, &set))
	return &set
}

// active are the pods of each node that have neither ended nor been deleted.
func (m *model) active() map[string][]*pcorev1.Pod {
	out := map[string][]*pcorev1.Pod{}
	for _, p := range m.pods() {
		if node, ok := workload.TargetNode(p); ok && workload.IsActive(p) {
			out[node] = append(out[node], p)
		}
	}
	return out
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// act lets the node's agent, or placement, take the next step with a pod: place it, make it ready, let it end.
func (m *model) act(pod *pcorev1.Pod) {
	ctx := context.Background()
	node, _ := workload.TargetNode(pod)
	switch {
	case pod.Spec.NodeName == "":
		pod.Spec.NodeName, pod.Finalizers = node, []string{agentFinalizer}
		m.must(m.truth.Update(ctx, pod))
	case pod.DeletionTimestamp != nil:
		pod.Finalizers = nil
		m.must(m.truth.Update(ctx, pod))
	case !workload.IsTerminal(pod) && !workload.IsReady(pod):
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		m.must(m.truth.Status().Update(ctx, pod))
	}
}

// newVersion changes the template.
func (m *model) newVersion(version string) {
	set := m.set()
	set.Generation++
	set.Spec.Template.Labels["version"] = version
	m.must(m.truth.Update(context.Background(), set))
}

// step lets one thing happen beside the controller.
func (m *model) step() {
	ctx := context.Background()
	what := rapid.SampledFrom([]string{
		"reconcile", "reconcile", "reconcile", "see", "see", "see", "crash", "act", "act", "act", "delete", "fail", "unready", "template", "join", "leave", "taint",
	}).Draw(m.t, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return
	case "see":
		m.see(rapid.IntRange(1, 4).Draw(m.t, "events"))
		return
	case "crash":
		m.crash()
		return
	case "template":
		m.newVersion(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(m.t, "version"))
		return
	case "join":
		err := m.truth.Create(ctx, makeNode(fmt.Sprint("node-", rapid.IntRange(0, 4).Draw(m.t, "node"))))
		if !apierrors.IsAlreadyExists(err) {
			m.must(err)
		}
		return
	}
	nodes, pods := m.nodes(), m.pods()
	if what == "leave" || what == "taint" {
		if len(nodes) == 0 {
			return
		}
		node := nodes[rapid.IntRange(0, len(nodes)-1).Draw(m.t, "node")]
		if what == "leave" {
			m.must(m.truth.Delete(ctx, node))
			return
		}
		node.Spec.Taints = makeNode("", rapid.SampledFrom([][]string{nil, {"mine:NoSchedule"}, {"mine:NoExecute"}}).Draw(m.t, "taint")...).Spec.Taints
		m.must(m.truth.Update(ctx, node))
		return
	}
	if len(pods) == 0 {
		return
	}
	pod := pods[rapid.IntRange(0, len(pods)-1).Draw(m.t, "pod")]
	switch what {
	case "act":
		m.act(pod)
	case "delete":
		m.must(m.truth.Delete(ctx, pod))
	case "fail":
		pod.Status.Phase = corev1.PodFailed
		m.must(m.truth.Status().Update(ctx, pod))
	case "unready":
		if workload.IsReady(pod) {
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			m.must(m.truth.Status().Update(ctx, pod))
		}
	}
}

// settle lets everybody work undisturbed until nothing changes any longer.
func (m *model) settle() {
	ctx := context.Background()
	for quiet := 0; quiet < 3; {
		before := len(m.history)
		m.see(len(m.history))
		m.reconcile()
		m.ahead += time.Hour // failed pods may go
		there := map[string]bool{}
		for _, node := range m.nodes() {
			there[node.Name] = true
		}
		for _, pod := range m.pods() {
			if node, _ := workload.TargetNode(pod); there[node] {
				m.act(pod)
			} else if pod.Spec.NodeName != "" { // as controllers/node/podgc does
				m.must(m.truth.Delete(ctx, pod))
				pod.Finalizers = nil
				m.must(client.IgnoreNotFound(m.truth.Update(ctx, m.fresh(pod))))
			}
		}
		quiet++
		if len(m.history) > before {
			quiet = 0
		}
		if len(m.history) > 2000 {
			m.t.Fatal("it doesn't come to rest")
		}
	}
	// Own writes are stamped by the real clock, so that time must not be ahead while the cache lags.
	m.ahead = 0
	m.restart()
}

// fresh is the pod as it is now, without finalizers; an empty one when it is gone.
func (m *model) fresh(pod *pcorev1.Pod) *pcorev1.Pod {
	out := pod.DeepCopy()
	if err := m.truth.Get(context.Background(), client.ObjectKeyFromObject(pod), out); err == nil {
		out.Finalizers = nil
	}
	return out
}

// converged fails unless each node that should run a pod runs one of the newest template, ready, and the status says so.
func (m *model) converged() {
	m.t.Helper()
	set, active := m.set(), m.active()
	want, misscheduled := int32(0), int32(0)
	for _, node := range m.nodes() {
		pods := active[node.Name]
		delete(active, node.Name)
		tainted := len(node.Spec.Taints) > 0
		if tainted && node.Spec.Taints[0].Effect == corev1.TaintEffectNoSchedule && len(pods) == 1 {
			misscheduled++
			continue
		}
		switch {
		case tainted && len(pods) == 0:
		case !tainted && len(pods) == 1 && workload.IsReady(pods[0]) && pods[0].Labels["version"] == set.Spec.Template.Labels["version"]:
			want++
		default:
			m.t.Fatalf("%d pods on node %s with taints %v", len(pods), node.Name, node.Spec.Taints)
		}
	}
	if len(active) > 0 {
		m.t.Fatalf("pods on nodes that aren't there: %v", active)
	}
	st := &set.Status
	if st.DesiredNumberScheduled != want || st.CurrentNumberScheduled != want || st.NumberReady != want || st.NumberAvailable != want ||
		st.UpdatedNumberScheduled != want || st.NumberUnavailable != 0 || st.NumberMisscheduled != misscheduled || st.ObservedGeneration != set.Generation {
		m.t.Fatalf("%d nodes wanted, %d misscheduled; generation %d, status %+v", want, misscheduled, set.Generation, *st)
	}
	if c, _ := condition.DaemonSet.Get(st.Conditions, pcorev1.ConditionReady); c.Status != corev1.ConditionTrue {
		m.t.Fatalf("conditions %+v", st.Conditions)
	}
	var revisions pappsv1.ControllerRevisionList
	m.must(m.truth.List(context.Background(), &revisions))
	if n := len(revisions.Items); n < 1 || n > 2+int(misscheduled) {
		m.t.Fatalf("%d revisions with a history limit of one", n)
	}
}

// alone fails if a pod that isn't meant to have company meets one on its node that is still ending.
func (m *model) alone() {
	m.t.Helper()
	there := map[string]string{}
	for _, pod := range m.pods() {
		node, _ := workload.TargetNode(pod)
		if other := there[node]; other != "" && !workload.IsTerminal(pod) {
			m.t.Fatalf("%s and %s on node %s", other, pod.Name, node)
		}
		if !workload.IsTerminal(pod) {
			there[node] = pod.Name
		}
	}
}

func drawStrategy(t *rapid.T) (appsv1.RollingUpdateDaemonSet, int, bool) {
	bound, surge := rapid.IntRange(1, 3).Draw(t, "bound"), rapid.Bool().Draw(t, "surge")
	zero, n := intstr.FromInt32(0), intstr.FromInt32(int32(bound))
	if surge {
		return appsv1.RollingUpdateDaemonSet{MaxSurge: &n, MaxUnavailable: &zero}, bound, true
	}
	return appsv1.RollingUpdateDaemonSet{MaxSurge: &zero, MaxUnavailable: &n}, bound, false
}

// TestOnePodOnEachNode: whatever happens to pods, nodes and the template, with a cache that lags and a controller that dies between any two writes,
// a node never holds more pods than one, or two when the set surges; and left alone, all becomes as the spec asks for.
func TestOnePodOnEachNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		strategy, _, surge := drawStrategy(t)
		m := newModel(t, rapid.IntRange(0, 4).Draw(t, "nodes"), strategy)
		most := 1
		if surge {
			most = 2
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.step()
			for node, pods := range m.active() {
				if len(pods) > most {
					t.Fatalf("%d pods on node %s", len(pods), node)
				}
			}
			if !surge {
				m.alone()
			}
		}
		m.settle()
		m.converged()
	})
}

// TestOwnWritesAreSeen: the slot of a pod that went becomes free in the cache before the pod shows up there that was made in its place, in the next
// slot. That one must not be made again in the free slot.
func TestOwnWritesAreSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		strategy, _, _ := drawStrategy(t)
		m := newModel(t, 1, strategy)
		m.settle()
		pod := m.pods()[0]
		pod.Status.Phase = corev1.PodFailed
		m.must(m.truth.Status().Update(context.Background(), pod))
		m.must(m.truth.Delete(context.Background(), pod))
		m.see(len(m.history))
		m.act(m.pods()[0]) // the end, which the cache doesn't show yet
		m.reconcile()
		for range rapid.IntRange(1, 2).Draw(t, "looks") {
			m.see(1)
			m.reconcile()
		}
		if n := len(m.pods()); n != 1 {
			t.Fatalf("%d pods", n)
		}
	})
}

// TestBounds: during a rollout of pods that don't fail by themselves, no more nodes than allowed lack a ready pod, and no more than allowed
// hold two, however the cache lags and whenever the controller dies. When the template changes once more on the way, the bound on what is
// unavailable still holds.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		strategy, bound, surge := drawStrategy(t)
		nodes := rapid.IntRange(1, 5).Draw(t, "nodes")
		m := newModel(t, nodes, strategy)
		m.settle()
		m.newVersion("2")
		once := true
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"reconcile", "reconcile", "see", "see", "act", "act", "act", "crash", "template"}).Draw(t, "event") {
			case "reconcile":
				m.reconcile()
			case "see":
				m.see(rapid.IntRange(1, 3).Draw(t, "events"))
			case "act":
				if pods := m.pods(); len(pods) > 0 {
					m.act(pods[rapid.IntRange(0, len(pods)-1).Draw(t, "pod")])
				}
			case "crash":
				m.crash()
			case "template":
				if rapid.IntRange(0, 4).Draw(t, "again") == 0 {
					once = false
					m.newVersion(rapid.SampledFrom([]string{"1", "3"}).Draw(t, "version"))
				}
			}
			up, doubled := 0, 0
			for _, pods := range m.active() {
				ready := 0
				for _, pod := range pods {
					if workload.IsReady(pod) {
						ready++
					}
				}
				if ready > 0 {
					up++
				}
				if len(pods) > 1 && ready < 2 {
					doubled++
				}
			}
			switch {
			case surge && (up < nodes || once && doubled > bound):
				t.Fatalf("surging by %d: %d of %d nodes have a ready pod, %d hold two", bound, up, nodes, doubled)
			case !surge && (up < nodes-bound || doubled > 0):
				t.Fatalf("swapping %d: %d of %d nodes have a ready pod, %d hold two", bound, up, nodes, doubled)
			}
		}
		m.settle()
		m.converged()
	})
}
