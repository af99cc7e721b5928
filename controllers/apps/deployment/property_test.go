// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// model is a cluster with one Deployment: the API server's truth, and what the controller's cache shows of it.
type model struct {
	d    *pappsv1.Deployment
	sets map[string]*modelSet
	now  time.Time
	uid  int
	// broken are images, and contents of config, whose pods never become available.
	broken map[string]bool
	// config is what the ConfigMap holds that the pods refer to under rolloutOn: Config; empty while it isn't there.
	config string
}

// modelSet is a ReplicaSet with its pods. Of a pod only its availability matters; deleted pods vanish.
type modelSet struct {
	rs   *pappsv1.ReplicaSet // truth
	seen *pappsv1.ReplicaSet // the cache's; an older state of the truth
	pods []bool
	// broken says that no pod becomes available.
	broken bool
}

func newModel(replicas int32, strategy appsv1.DeploymentStrategy) *model {
	m := &model{sets: map[string]*modelSet{}, now: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	labels := map[string]string{"app": "web"}
	m.d = &pappsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "test", UID: "d", Generation: 1}}
	m.d.Spec.Replicas = &replicas
	m.d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	m.d.Spec.Strategy = strategy
	m.d.Spec.Template.Labels = labels
	m.setTemplate(1)
	return m
}

func (m *model) setTemplate(n int) {
	m.d.Spec.Template = *m.d.Spec.Template.DeepCopy()
	m.d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: fmt.Sprintf("image:%d", n)}}
	m.d.Generation++
}

// reconcile is one look of the controller, with the cache's view; crash is after how many writes it dies.
func (m *model) reconcile(t rapid.TB, crash int) {
	s := &scope{deployment: m.d, now: m.now}
	var err error
	if s.settings, err = readSettings(&m.d.Spec); err != nil {
		t.Fatal(err)
	}
	m.pin(s)
	for _, name := range m.names() {
		if m.sets[name].seen != nil {
			s.replicaSets = append(s.replicaSets, m.sets[name].seen)
		}
	}
	p, err := makePlan(s)
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{estimate: p.estimate}
	writes := 0
	dead := func() bool { writes++; return writes > crash }
	if p.create != nil {
		if dead() {
			return
		}
		o.created = m.create(p.create)
	}
	if p.deployment != nil {
		if dead() {
			return
		}
		m.d.Annotations = p.deployment.Annotations
	}
	for _, c := range p.update {
		if dead() || !m.update(c) {
			return // a crash, or a conflict
		}
	}
	for _, rs := range p.remove {
		if dead() {
			return
		}
		if len(m.sets[rs.Name].pods) > 0 {
			t.Fatalf("ReplicaSet %s is removed with %d pods", rs.Name, len(m.sets[rs.Name].pods))
		}
		delete(m.sets, rs.Name)
	}
	for _, name := range m.names() {
		if m.sets[name].seen != nil {
			o.replicaSets = append(o.replicaSets, m.sets[name].seen)
		}
	}
	if dead() {
		return
	}
	m.d.Status, _ = makeStatus(s, o)
}

// onConfig makes the pods refer to a ConfigMap whose content is part of the revision.
func (m *model) onConfig(content string) {
	m.d.Spec.RolloutOn, m.config = pappsv1.RolloutOnConfig, content
	m.d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "app"}},
	}}}
}

// pin does what kube.Configs does.
func (m *model) pin(s *scope) {
	if m.d.Spec.RolloutOn == "" {
		return
	}
	contents := map[revision.ConfigRef]revision.Content{}
	if m.config != "" {
		contents[revision.ConfigRef{Kind: revision.KindConfigMap, Name: "app"}] = revision.Content{Digest: m.config}
	}
	s.pinned = revision.Pin("Deployment/web", &m.d.Spec.Template, contents)
}

// isBroken says whether pods of a template never become available.
func (m *model) isBroken(template *pcorev1.PodTemplateSpec) bool {
	return m.broken[template.Spec.Containers[0].Image] || m.broken[m.contentOf(template)]
}

// contentOf is the content that pods of a template find.
func (m *model) contentOf(template *pcorev1.PodTemplateSpec) string {
	if len(template.Spec.Volumes) == 0 {
		return ""
	}
	for _, content := range []string{"one", "two", "bad"} {
		pinned := revision.Pin("Deployment/web", &m.d.Spec.Template, map[revision.ConfigRef]revision.Content{{Kind: revision.KindConfigMap, Name: "app"}: {Digest: content}})
		if pinned.Template.Spec.Volumes[0].ConfigMap.Name == template.Spec.Volumes[0].ConfigMap.Name {
			return content
		}
	}
	return "not pinned"
}

func (m *model) names() []string {
	var out []string
	for name := range m.sets {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (m *model) create(rs *pappsv1.ReplicaSet) *pappsv1.ReplicaSet {
	if there, ok := m.sets[rs.Name]; ok { // AlreadyExists, and ours
		there.seen = there.rs
		return there.rs
	}
	m.uid++
	rs = rs.DeepCopy()
	rs.UID, rs.Generation = types.UID(fmt.Sprint("rs", m.uid)), 1
	rs.Status.ObservedGeneration = -1
	rs.CreationTimestamp = metav1.NewTime(m.now)
	m.sets[rs.Name] = &modelSet{rs: rs, seen: rs, broken: m.isBroken(&rs.Spec.Template)} // own writes are seen at once (kube.Overlay)
	return rs
}

// update writes a ReplicaSet's spec if the cache was up to date about it; a status that is newer conflicts, too.
func (m *model) update(c change) bool {
	s := m.sets[c.before.Name]
	if s.rs != c.before {
		return false
	}
	rs := c.after.DeepCopy()
	rs.Generation++
	s.rs, s.seen = rs, rs
	return true
}

// sync is one look of the ReplicaSet controller.
func (s *modelSet) sync() {
	s.syncPods()
	s.report()
}

// syncPods makes and deletes pods; those that aren't available go first. The controller may crash after it.
func (s *modelSet) syncPods() {
	want := int(*s.rs.Spec.Replicas)
	for len(s.pods) < want {
		s.pods = append(s.pods, false)
	}
	slices.SortFunc(s.pods, func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	})
	s.pods = s.pods[:want]
}

// report writes the status.
func (s *modelSet) report() {
	rs := s.rs.DeepCopy()
	rs.Status.ObservedGeneration = rs.Generation
	rs.Status.Replicas = int32(len(s.pods))
	rs.Status.AvailableReplicas, rs.Status.ReadyReplicas = s.available(), s.available()
	s.rs = rs
}

func (s *modelSet) available() int32 {
	var n int32
	for _, a := range s.pods {
		if a {
			n++
		}
	}
	return n
}

func (m *model) totals() (there, available int32) {
	for _, s := range m.sets {
		there += int32(len(s.pods))
		available += s.available()
	}
	return there, available
}

// settle lets everything happen until nothing changes.
func (m *model) settle(t *rapid.T) {
	for range 400 {
		for _, name := range m.names() {
			s := m.sets[name]
			s.sync()
			for i := range s.pods {
				s.pods[i] = !s.broken
			}
			s.sync()
			s.seen = s.rs
		}
		before := m.d.Status
		m.reconcile(t, 1000)
		m.now = m.now.Add(time.Second)
		if m.rests() && compareStatus(&before, &m.d.Status) == same {
			return
		}
	}
	t.Fatalf("the rollout doesn't end: status %+v", m.d.Status)
}

// rests says whether nothing is left to do: the Deployment is ready, or a rollback has been carried out.
func (m *model) rests() bool {
	c, _ := condition.Deployment.Get(m.d.Status.Conditions, pcorev1.ConditionReady)
	if c.Status == corev1.ConditionTrue {
		return true
	}
	if m.d.Status.Rollback == nil {
		return false
	}
	s := m.sets[m.d.Status.Rollback.Revision]
	there, available := m.totals()
	return s != nil && *s.rs.Spec.Replicas == *m.d.Spec.Replicas && there == *m.d.Spec.Replicas && (s.broken || available == there)
}

// TestRollingUpdateBoundsHold: whatever the order of events, whatever the cache misses, and wherever the controller crashes, there are
// never more pods than the surge allows, and never fewer available ones than the bound, as long as no pod fails by itself.
func TestRollingUpdateBoundsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.Int32Range(0, 12).Draw(t, "replicas")
		surge := fence(t, "maxSurge")
		unavailable := fence(t, "maxUnavailable")
		m := newModel(replicas, appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}})
		m.settle(t)
		st, err := readSettings(&m.d.Spec)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			m.step(t)
			there, available := m.totals()
			if there > st.most() || available < st.least() {
				t.Fatalf("%d pods of at most %d, %d available of at least %d", there, st.most(), available, st.least())
			}
		}
		m.settle(t)
		if there, available := m.totals(); there != replicas || available != replicas {
			t.Fatalf("%d pods, %d available in the end; want %d", there, available, replicas)
		}
	})
}

func fence(t *rapid.T, name string) intstr.IntOrString {
	if rapid.Bool().Draw(t, name+" in percent") {
		return intstr.FromString(fmt.Sprintf("%d%%", rapid.IntRange(0, 100).Draw(t, name)))
	}
	return intstr.FromInt32(rapid.Int32Range(0, 5).Draw(t, name))
}

// step lets one thing happen.
func (m *model) step(t *rapid.T) {
	m.now = m.now.Add(time.Second)
	names := m.names()
	pick := func() *modelSet { return m.sets[rapid.SampledFrom(names).Draw(t, "ReplicaSet")] }
	switch rapid.SampledFrom([]string{"reconcile", "crash", "sync", "sync", "syncPods", "see", "see", "available", "available", "template"}).Draw(t, "event") {
	case "reconcile":
		m.reconcile(t, 1000)
	case "crash":
		m.reconcile(t, rapid.IntRange(0, 3).Draw(t, "writes before the crash"))
	case "sync":
		pick().sync()
	case "syncPods":
		pick().syncPods()
	case "see":
		s := pick()
		s.seen = s.rs
	case "available":
		s := pick()
		if len(s.pods) > 0 {
			s.pods[rapid.IntRange(0, len(s.pods)-1).Draw(t, "pod")] = !s.broken
		}
	case "template":
		m.setTemplate(rapid.IntRange(1, 3).Draw(t, "template"))
	}
}

// TestRecreateNeverOverlaps: with Recreate, pods of two revisions are never there at once.
func TestRecreateNeverOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(rapid.Int32Range(0, 5).Draw(t, "replicas"), appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType})
		m.settle(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.step(t)
			revisions := 0
			for _, s := range m.sets {
				if len(s.pods) > 0 {
					revisions++
				}
			}
			if revisions > 1 {
				t.Fatalf("pods of %d revisions at once", revisions)
			}
		}
		m.settle(t)
	})
}

// TestScalingConverges: with sizes, templates and pauses changing at any time, and pods failing, the Deployment ends where its spec says.
func TestScalingConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(rapid.Int32Range(0, 8).Draw(t, "replicas"), appsv1.DeploymentStrategy{})
		m.settle(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"step", "step", "step", "scale", "pause", "fail"}).Draw(t, "kind") {
			case "scale":
				m.d.Spec.Replicas = new(rapid.Int32Range(0, 12).Draw(t, "new size"))
				m.d.Generation++
			case "pause":
				m.d.Spec.Paused = !m.d.Spec.Paused
				m.d.Generation++
			case "fail":
				for _, name := range m.names() {
					if s := m.sets[name]; len(s.pods) > 0 {
						s.pods[0] = false
					}
				}
			default:
				m.step(t)
			}
		}
		m.d.Spec.Paused = false
		m.d.Generation++
		m.settle(t)
		if there, _ := m.totals(); there != *m.d.Spec.Replicas {
			t.Fatalf("%d pods in the end, want %d", there, *m.d.Spec.Replicas)
		}
	})
}
