// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"context"
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
	pstoragev1 "github.com/pinnace-dev/pinnace/api/storage/v1"
	"github.com/pinnace-dev/pinnace/internal/workload"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// model is a world with one StatefulSet.
type model struct {
	*lagging.World
	r     *Reconciler
	clock time.Time
	// images are those that the user may choose.
	images []string
	// byHand are the pods that the controller itself deleted.
	byHand map[types.UID]bool
}

const (
	agentFinalizer = "test/agent"
	// badImage is one whose pods never become ready.
	badImage = "bad"
)

var db = types.NamespacedName{Namespace: "test", Name: "db"}

func newModel(t *rapid.T, set *pappsv1.StatefulSet) *model {
	m := &model{byHand: map[types.UID]bool{}, clock: testNow}
	m.World = lagging.New(t, lagging.Options{
		Schemes: []func(*runtime.Scheme) error{pcorev1.AddToScheme, pappsv1.AddToScheme, pstoragev1.AddToScheme},
		Status:  []client.Object{&pappsv1.StatefulSet{}, &pcorev1.Pod{}, &pcorev1.PersistentVolumeClaim{}},
		Once:    []client.Object{&pcorev1.Pod{}},
		Now:     func() time.Time { return m.clock },
		Before:  m.before,
		After:   m.after,
		Gone: func(owner types.UID, obj client.Object) {
			m.r.pods.Own.Gone(owner, obj.GetUID())
			m.r.revisions.Own.Gone(owner, obj.GetUID())
		},
	})
	m.Must(m.Truth.Create(context.Background(), set))
	m.restart()
	return m
}

func (m *model) before(w lagging.Write) error {
	pod, ok := w.Object.(*pcorev1.Pod)
	switch {
	case ok && w.Verb == lagging.Create:
		pod.Finalizers = []string{agentFinalizer} // as if placed at once
	case ok && w.Verb == lagging.Delete && w.ByController:
		m.checkDeletion(pod)
	}
	if _, set := w.Object.(*pappsv1.StatefulSet); set && w.ByController && w.Verb != lagging.Status {
		m.Broken("the spec is the user's, and was changed by a %s", w.Verb)
	}
	return nil
}

func (m *model) after(w lagging.Write) error {
	if pod, ok := w.Object.(*pcorev1.Pod); ok && w.Verb == lagging.Create && w.ByController {
		m.checkCreation(pod)
	}
	return nil
}

// view is the pod of that ordinal as far as the controller can know it: what the cache shows, and what it did itself.
func (m *model) view(ordinal int) *pcorev1.Pod {
	pod, ok := lagging.Cached(m.World, types.NamespacedName{Namespace: db.Namespace, Name: podName(db.Name, ordinal)}, &pcorev1.Pod{})
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
func (m *model) checkCreation(pod *pcorev1.Pod) {
	set := m.cachedSet()
	s, _ := readSettings(&set.Spec)
	ordinal := ordinalOf("db", pod.Name)
	if s.ordered {
		for i := s.start; i < ordinal; i++ {
			if !m.seemsUp(i) {
				m.Broken("%s was made while db-%d isn't ready", pod.Name, i)
			}
		}
	}
	_ = m.isBad(pod) // its config is there
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		claim := types.NamespacedName{Namespace: db.Namespace, Name: v.PersistentVolumeClaim.ClaimName}
		if err := m.Live().Get(context.Background(), claim, &pcorev1.PersistentVolumeClaim{}); err != nil {
			m.Broken("%s was made before its claim: %v", pod.Name, err)
		}
	}
}

// checkDeletion: an update takes no more pods down than it may.
func (m *model) checkDeletion(pod *pcorev1.Pod) {
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
		m.Broken("deleting %s takes %d pods down; %d may be", pod.Name, down, s.maxUnavailable)
	}
}

func (m *model) cachedSet() *pappsv1.StatefulSet {
	set, ok := lagging.Cached(m.World, db, &pappsv1.StatefulSet{})
	if !ok {
		m.T.Fatal("the cache has no set")
	}
	return set
}

// restart starts a controller that knows nothing; its cache begins with all that is there.
func (m *model) restart() {
	m.r = NewReconciler(m.Client(), m.Live())
	since := m.clock
	m.r.now, m.r.since = func() time.Time { return m.clock }, func() time.Time { return since }
	m.r.config.Attach(m.Manager())
	m.SeeAll()
}

func (m *model) reconcile() {
	m.clock = m.clock.Add(time.Second)
	m.Reconcile(m.r, db, apierrors.IsAlreadyExists, apierrors.IsConflict)
}

func (m *model) set() *pappsv1.StatefulSet { return lagging.Get(m.World, db, &pappsv1.StatefulSet{}) }

// edit changes the spec, as a user does.
func (m *model) edit(edit func(*pappsv1.StatefulSet)) {
	set := m.set()
	edit(set)
	set.Generation++
	m.Must(m.Truth.Update(context.Background(), set))
}

func (m *model) setPhase(pod *pcorev1.Pod, phase corev1.PodPhase, ready corev1.ConditionStatus) {
	if workload.IsTerminal(pod) || ready == corev1.ConditionTrue && m.isBad(pod) {
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
	m.Must(m.Truth.Status().Update(context.Background(), pod))
}

// isBad says that a pod never becomes ready, because of its image or its config.
func (m *model) isBad(pod *pcorev1.Pod) bool {
	return pod.Spec.Containers[0].Image == badImage || m.ConfigOf(&pod.Spec.PodSpec) == badImage
}

func (m *model) end(pod *pcorev1.Pod) {
	if pod.DeletionTimestamp != nil {
		pod.Finalizers = nil
		m.Must(m.Truth.Update(context.Background(), pod))
	}
}

// newImage changes the template, as a user does.
func (m *model) newImage() {
	image := rapid.SampledFrom(m.images).Draw(m.T, "image")
	m.edit(func(set *pappsv1.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = image })
}

// step lets one thing happen, and says what.
func (m *model) step() string {
	what := rapid.SampledFrom([]string{
		"reconcile", "reconcile", "reconcile", "see", "see", "see", "crash", "delete", "end", "end", "ready", "ready", "ready", "unready", "fail", "image", "size",
	}).Draw(m.T, "event")
	switch what {
	case "reconcile":
		m.reconcile()
		return what
	case "see":
		m.SeeSome(6)
		return what
	case "crash":
		m.Crash(5, m.reconcile, m.restart)
		return what
	case "image":
		m.newImage()
		return what
	case "size":
		size := rapid.Int32Range(0, 5).Draw(m.T, "size")
		m.edit(func(set *pappsv1.StatefulSet) { set.Spec.Replicas = &size })
		return what
	}
	pods := m.Pods()
	if len(pods) == 0 {
		return what
	}
	pod := lagging.Pick(m.World, "pod", pods)
	switch what {
	case "delete":
		m.Must(m.Truth.Delete(context.Background(), pod))
	case "end":
		m.end(pod)
	case "ready":
		m.setPhase(pod, corev1.PodRunning, corev1.ConditionTrue)
	case "unready":
		m.setPhase(pod, corev1.PodRunning, corev1.ConditionFalse)
	case "fail":
		m.setPhase(pod, corev1.PodFailed, corev1.ConditionFalse)
	}
	return what
}

// settle lets everything go well from here on, until nothing has changed for longer than a rollout's deadline.
func (m *model) settle() {
	for quiet := 0; quiet < 25; quiet++ {
		before := m.Writes()
		m.SeeAll()
		m.reconcile()
		for _, pod := range m.Pods() {
			if pod.DeletionTimestamp != nil {
				m.end(pod)
			} else if !isReady(pod) {
				m.setPhase(pod, corev1.PodRunning, corev1.ConditionTrue)
			}
		}
		if m.Writes() > before {
			quiet = 0
		}
		if m.Writes() > 3000 {
			m.T.Fatal("the set doesn't come to rest")
		}
	}
}

// drawSet draws a set with claims, without an update strategy.
func drawSet(t *rapid.T) *pappsv1.StatefulSet {
	set := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: db.Name, Namespace: db.Namespace, Generation: 1}}
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
	return set
}

// TestSafeAndConvergent: with a cache that lags, pods that fail, are deleted and become unready, a spec that changes, and a controller that
// dies between any two writes: no pod is started before its claims are there and its predecessors are ready, no update takes down more than
// maxUnavailable, and when the world is good again, the set becomes what its spec says, even if some pods are of a revision that never works.
func TestSafeAndConvergent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := drawSet(t)
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
	for _, pod := range m.Pods() {
		images[pod.Name] = pod.Spec.Containers[0].Image
		ordinal := ordinalOf("db", pod.Name)
		if ordinal < s.start || ordinal >= s.end() {
			m.T.Fatalf("%s is still there", pod.Name)
		}
		if ordinal >= s.updateFrom && pod.Spec.Containers[0].Image != set.Spec.Template.Spec.Containers[0].Image {
			m.T.Fatalf("%s runs %s, not %s", pod.Name, pod.Spec.Containers[0].Image, set.Spec.Template.Spec.Containers[0].Image)
		}
	}
	if len(images) != s.replicas {
		m.T.Fatalf("pods %v, wanted are %d", images, s.replicas)
	}
	if set.Status.ReadyReplicas != int32(s.replicas) || set.Status.ObservedGeneration != set.Generation {
		m.T.Fatalf("status %+v", set.Status)
	}
	revs := lagging.Items[*pappsv1.ControllerRevision](m.World, &pappsv1.ControllerRevisionList{})
	if n, most := len(revs), 2+int(s.history)+s.replicas; n > most {
		m.T.Fatalf("%d revisions, at most %d are needed", n, most)
	}
}
