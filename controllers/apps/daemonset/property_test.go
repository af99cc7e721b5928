// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"context"
	"fmt"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/workload"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// model is a world with one DaemonSet and some nodes.
type model struct {
	*lagging.World
	r *Reconciler
	// ahead is how far the controller's clock is ahead.
	ahead time.Duration
}

// badVersion is one whose pods never become ready.
const badVersion = "bad"

const agentFinalizer = "test/agent"

var net = types.NamespacedName{Namespace: "test", Name: "net"}

func newModel(t *rapid.T, nodes int, strategy appsv1.RollingUpdateDaemonSet, changes ...func(*pappsv1.DaemonSetSpec)) *model {
	m := &model{}
	m.World = lagging.New(t, lagging.Options{
		Schemes: []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme},
		Status:  []client.Object{&pappsv1.DaemonSet{}, &pcorev1.Pod{}},
		Once:    []client.Object{&pcorev1.Pod{}},
		Now:     func() time.Time { return epoch }, // all in one second, as it may be
		Before: func(w lagging.Write) error {
			if _, set := w.Object.(*pappsv1.DaemonSet); set && w.ByController && w.Verb != lagging.Status {
				m.Broken("the spec is the user's, and was changed by a %s", w.Verb)
			}
			return nil
		},
		Gone: func(owner types.UID, obj client.Object) {
			switch obj.(type) {
			case *pcorev1.Pod:
				m.r.pods.Own.Gone(owner, obj.GetUID())
			case *pappsv1.ControllerRevision:
				m.r.revisions.Own.Gone(owner, obj.GetUID())
			}
		},
	})
	set := &pappsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: net.Name, Namespace: net.Namespace, Generation: 1}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "net"}}
	set.Spec.Template.Labels = map[string]string{"app": "net", "version": "1"}
	set.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &strategy}
	set.Spec.RevisionHistoryLimit = new(int32(1))
	for _, change := range changes {
		change(&set.Spec)
	}
	m.Must(m.Truth.Create(context.Background(), set))
	for i := range nodes {
		m.Must(m.Truth.Create(context.Background(), makeNode(fmt.Sprint("node-", i))))
	}
	m.restart()
	return m
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(m.Client(), m.Live())
	since := time.Now().Add(m.ahead)
	m.r.now, m.r.since = func() time.Time { return time.Now().Add(m.ahead) }, func() time.Time { return since }
	m.r.config.Attach(m.Manager())
	m.SeeAll()
}

func (m *model) reconcile() { m.Reconcile(m.r, net) }

func (m *model) crash() { m.Crash(5, m.reconcile, m.restart) }

func (m *model) nodes() []*pcorev1.Node {
	return lagging.Items[*pcorev1.Node](m.World, &pcorev1.NodeList{})
}

func (m *model) set() *pappsv1.DaemonSet { return lagging.Get(m.World, net, &pappsv1.DaemonSet{}) }

// active are the pods of each node that have neither ended nor been deleted.
func (m *model) active() map[string][]*pcorev1.Pod {
	out := map[string][]*pcorev1.Pod{}
	for _, p := range m.Pods() {
		if node, ok := workload.TargetNode(p); ok && workload.IsActive(p) {
			out[node] = append(out[node], p)
		}
	}
	return out
}

// act lets the node's agent, or placement, take the next step with a pod: place it, make it ready, let it end.
func (m *model) act(pod *pcorev1.Pod) {
	ctx := context.Background()
	node, _ := workload.TargetNode(pod)
	switch {
	case pod.Spec.NodeName == "":
		pod.Spec.NodeName, pod.Finalizers = node, []string{agentFinalizer}
		m.Must(m.Truth.Update(ctx, pod))
	case pod.DeletionTimestamp != nil:
		pod.Finalizers = nil
		m.Must(m.Truth.Update(ctx, pod))
	case !workload.IsTerminal(pod) && !workload.IsReady(pod) && !m.isBad(pod):
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		m.Must(m.Truth.Status().Update(ctx, pod))
	}
}

// isBad says that a pod never becomes ready, because of its template or its config.
func (m *model) isBad(pod *pcorev1.Pod) bool {
	return pod.Labels["version"] == badVersion || m.ConfigOf(&pod.Spec.PodSpec) == badVersion
}

// newVersion changes the template.
func (m *model) newVersion(version string) {
	set := m.set()
	set.Generation++
	set.Spec.Template.Labels["version"] = version
	m.Must(m.Truth.Update(context.Background(), set))
}

// step lets one thing happen beside the controller.
func (m *model) step() {
	ctx := context.Background()
	what := rapid.SampledFrom([]string{
		"reconcile", "reconcile", "reconcile", "see", "see", "see", "crash", "act", "act", "act", "delete", "fail", "unready", "template", "join", "leave", "taint",
	}).Draw(m.T, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return
	case "see":
		m.SeeSome(4)
		return
	case "crash":
		m.crash()
		return
	case "template":
		m.newVersion(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(m.T, "version"))
		return
	case "join":
		err := m.Truth.Create(ctx, makeNode(fmt.Sprint("node-", rapid.IntRange(0, 4).Draw(m.T, "node"))))
		if !apierrors.IsAlreadyExists(err) {
			m.Must(err)
		}
		return
	}
	nodes, pods := m.nodes(), m.Pods()
	if what == "leave" || what == "taint" {
		if len(nodes) == 0 {
			return
		}
		node := lagging.Pick(m.World, "node", nodes)
		if what == "leave" {
			m.Must(m.Truth.Delete(ctx, node))
			return
		}
		node.Spec.Taints = makeNode("", rapid.SampledFrom([][]string{nil, {"mine:NoSchedule"}, {"mine:NoExecute"}}).Draw(m.T, "taint")...).Spec.Taints
		m.Must(m.Truth.Update(ctx, node))
		return
	}
	if len(pods) == 0 {
		return
	}
	pod := lagging.Pick(m.World, "pod", pods)
	switch what {
	case "act":
		m.act(pod)
	case "delete":
		m.Must(m.Truth.Delete(ctx, pod))
	case "fail":
		pod.Status.Phase = corev1.PodFailed
		m.Must(m.Truth.Status().Update(ctx, pod))
	case "unready":
		if workload.IsReady(pod) {
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			m.Must(m.Truth.Status().Update(ctx, pod))
		}
	}
}

// settle lets everybody work undisturbed until nothing changes any longer.
func (m *model) settle() { m.rest(3, time.Hour) } // failed pods may go

// rest is settle for a number of looks, that far apart, in which nothing changes.
func (m *model) rest(looks int, apart time.Duration) {
	ctx := context.Background()
	for quiet := 0; quiet < looks; {
		before := m.Writes()
		m.SeeAll()
		m.reconcile()
		m.ahead += apart
		there := map[string]bool{}
		for _, node := range m.nodes() {
			there[node.Name] = true
		}
		for _, pod := range m.Pods() {
			if node, _ := workload.TargetNode(pod); there[node] {
				m.act(pod)
			} else if pod.Spec.NodeName != "" { // as controllers/node/podgc does
				m.Must(m.Truth.Delete(ctx, pod))
				pod.Finalizers = nil
				m.Must(client.IgnoreNotFound(m.Truth.Update(ctx, m.fresh(pod))))
			}
		}
		quiet++
		if m.Writes() > before {
			quiet = 0
		}
		if m.Writes() > 2000 {
			m.T.Fatal("it doesn't come to rest")
		}
	}
}

// fresh is the pod as it is now, without finalizers; an empty one when it is gone.
func (m *model) fresh(pod *pcorev1.Pod) *pcorev1.Pod {
	out := pod.DeepCopy()
	if err := m.Truth.Get(context.Background(), client.ObjectKeyFromObject(pod), out); err == nil {
		out.Finalizers = nil
	}
	return out
}

// converged fails unless each node that should run a pod runs one of the newest template, ready, and the status says so.
func (m *model) converged() {
	m.T.Helper()
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
			m.T.Fatalf("%d pods on node %s with taints %v", len(pods), node.Name, node.Spec.Taints)
		}
	}
	if len(active) > 0 {
		m.T.Fatalf("pods on nodes that aren't there: %v", active)
	}
	st := &set.Status
	if st.DesiredNumberScheduled != want || st.CurrentNumberScheduled != want || st.NumberReady != want || st.NumberAvailable != want ||
		st.UpdatedNumberScheduled != want || st.NumberUnavailable != 0 || st.NumberMisscheduled != misscheduled || st.ObservedGeneration != set.Generation {
		m.T.Fatalf("%d nodes wanted, %d misscheduled; generation %d, status %+v", want, misscheduled, set.Generation, *st)
	}
	if c, _ := condition.DaemonSet.Get(st.Conditions, pcorev1.ConditionReady); c.Status != corev1.ConditionTrue {
		m.T.Fatalf("conditions %+v", st.Conditions)
	}
	revisions := lagging.Items[*pappsv1.ControllerRevision](m.World, &pappsv1.ControllerRevisionList{})
	if n := len(revisions); n < 1 || n > 2+int(misscheduled) {
		m.T.Fatalf("%d revisions with a history limit of one", n)
	}
}

// alone fails if a pod that isn't meant to have company meets one on its node that is still ending.
func (m *model) alone() {
	m.T.Helper()
	there := map[string]string{}
	for _, pod := range m.Pods() {
		node, _ := workload.TargetNode(pod)
		if other := there[node]; other != "" && !workload.IsTerminal(pod) {
			m.T.Fatalf("%s and %s on node %s", other, pod.Name, node)
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
		pod := m.Pods()[0]
		pod.Status.Phase = corev1.PodFailed
		m.Must(m.Truth.Status().Update(context.Background(), pod))
		m.Must(m.Truth.Delete(context.Background(), pod))
		m.SeeAll()
		m.act(m.Pods()[0]) // the end, which the cache doesn't show yet
		m.reconcile()
		for range rapid.IntRange(1, 2).Draw(t, "looks") {
			m.See(&pcorev1.Pod{}, 1)
			m.reconcile()
		}
		if n := len(m.Pods()); n != 1 {
			t.Fatalf("%d pods", n)
		}
	})
}

// count is on how many nodes a pod is ready, and how many hold two that aren't both.
func (m *model) count() (up, doubled int) {
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
	return up, doubled
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
				m.SeeSome(3)
			case "act":
				if pods := m.Pods(); len(pods) > 0 {
					m.act(lagging.Pick(m.World, "pod", pods))
				}
			case "crash":
				m.crash()
			case "template":
				if rapid.IntRange(0, 4).Draw(t, "again") == 0 {
					once = false
					m.newVersion(rapid.SampledFrom([]string{"1", "3"}).Draw(t, "version"))
				}
			}
			up, doubled := m.count()
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
