// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
)

// failing is a world with a Deployment of three pods whose second revision never becomes available and has been given up.
func failing(t *testing.T) (*model, func(time.Duration)) {
	m := newModel(3, appsv1.DeploymentStrategy{})
	m.broken = map[string]bool{"image:2": true}
	m.d.Spec.OnFailure = pappsv1.FailureRollback
	m.d.Spec.ProgressDeadlineSeconds = new(int32(60))
	run := func(d time.Duration) { m.run(t, d) }
	cause := func(text string) {
		m.d.Annotations = maps.Clone(m.d.Annotations)
		if m.d.Annotations == nil {
			m.d.Annotations = map[string]string{}
		}
		m.d.Annotations["kubernetes.io/change-cause"] = text
	}
	cause("good")
	run(10 * time.Second)
	m.setTemplate(2)
	cause("bad")
	run(100 * time.Second)
	if m.d.Status.Rollback == nil {
		t.Fatalf("no rollback; status %+v", m.d.Status)
	}
	return m, run
}

// run lets that much time pass, with everybody at work.
func (m *model) run(t *testing.T, d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); m.now = m.now.Add(time.Second) {
		for _, name := range m.names() {
			s := m.sets[name]
			s.sync()
			for i := range s.pods {
				s.pods[i] = !s.broken
			}
			s.sync()
			s.seen = s.rs
		}
		m.reconcile(t, 1000)
	}
}

// runs is what runs: the image and the number of available pods of each revision that has pods.
func (m *model) runs() map[string]int32 {
	out := map[string]int32{}
	for _, s := range m.sets {
		if len(s.pods) > 0 {
			out[s.rs.Spec.Template.Spec.Containers[0].Image] += s.available()
		}
	}
	return out
}

func (m *model) verdict() (state, reason string) {
	for _, kind := range []string{pcorev1.ConditionStalled, pcorev1.ConditionReconciling, pcorev1.ConditionReady} {
		if c, ok := condition.Deployment.Get(m.d.Status.Conditions, kind); ok && c.Status == corev1.ConditionTrue {
			return kind, c.Reason
		}
	}
	return "", ""
}

func TestRollbackGoesBackAndStays(t *testing.T) {
	m, run := failing(t)
	want := map[string]int32{"image:1": 3}
	if diff := cmp.Diff(want, m.runs()); diff != "" {
		t.Error(diff)
	}
	if image := m.d.Spec.Template.Spec.Containers[0].Image; image != "image:2" {
		t.Errorf("the spec says %s, not what the user wrote", image)
	}
	if state, reason := m.verdict(); state != pcorev1.ConditionStalled || reason != revision.ReasonTimedOut {
		t.Errorf("%s, %s", state, reason)
	}
	if m.d.Status.UpdatedReplicas != 0 || m.d.Status.AvailableReplicas != 3 {
		t.Errorf("%d updated, %d available; want 0, 3", m.d.Status.UpdatedReplicas, m.d.Status.AvailableReplicas)
	}
	if c, _ := progress(m.d.Status.Conditions); c.Status != corev1.ConditionFalse || c.Reason != reasonTimedOut {
		t.Errorf("progressing %+v", c)
	}
	if number := m.d.Annotations[revision.Annotation]; number != "2" {
		t.Errorf("revision %s; the spec's own is 2", number)
	}
	old := m.sets[m.d.Status.Rollback.Revision].rs
	if number, cause := old.Annotations[revision.Annotation], old.Annotations["kubernetes.io/change-cause"]; number != "1" || cause != "good" {
		t.Errorf("what runs is revision %s, because of %q", number, cause)
	}
	generation := m.d.Status.Rollback.Generation
	run(time.Hour)
	if m.d.Status.Rollback == nil || m.d.Status.Rollback.Generation != generation {
		t.Error("time alone tries again")
	}
}

func TestRollbackAndChangesOfTheSpec(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*model)
		held   bool
		want   map[string]int32
	}{
		"a size keeps it":  {change: func(m *model) { m.d.Spec.Replicas = new(int32(5)) }, held: true, want: map[string]int32{"image:1": 5}},
		"zero keeps it":    {change: func(m *model) { m.d.Spec.Replicas = new(int32(0)) }, held: true, want: map[string]int32{}},
		"a pause keeps it": {change: func(m *model) { m.d.Spec.Paused = true }, held: true, want: map[string]int32{"image:1": 3}},
		"a good template":  {change: func(m *model) { m.setTemplate(3) }, want: map[string]int32{"image:3": 3}},
		"the old template": {change: func(m *model) { m.setTemplate(1) }, want: map[string]int32{"image:1": 3}},
		"switched off":     {change: func(m *model) { m.d.Spec.OnFailure = "" }, want: map[string]int32{"image:1": 3, "image:2": 0}},
		"a new deadline":   {change: func(m *model) { m.d.Spec.ProgressDeadlineSeconds = new(int32(1000)) }, want: map[string]int32{"image:1": 3, "image:2": 0}},
		"the revision is gone": {change: func(m *model) {
			for name, s := range m.sets {
				if !s.broken {
					delete(m.sets, name)
				}
			}
		}, want: map[string]int32{"image:2": 0}},
	} {
		t.Run(what, func(t *testing.T) {
			m, run := failing(t)
			test.change(m)
			m.d.Generation++
			m.reconcile(t, 1000)
			if c, _ := progress(m.d.Status.Conditions); (c.Reason == reasonTimedOut) != test.held {
				t.Errorf("progressing %+v", c)
			}
			run(50 * time.Second)
			if diff := cmp.Diff(test.want, m.runs()); diff != "" {
				t.Error(diff)
			}
			if (m.d.Status.Rollback != nil) != test.held {
				t.Errorf("rollback %+v", m.d.Status.Rollback)
			}
			if m.d.Status.ObservedGeneration != m.d.Generation {
				t.Errorf("generation %d observed of %d", m.d.Status.ObservedGeneration, m.d.Generation)
			}
		})
	}
}

// TestRollbackAgain: each try of the user gets its own deadline and its own rollback.
func TestRollbackAgain(t *testing.T) {
	m, run := failing(t)
	first := *m.d.Status.Rollback
	m.d.Spec.Template = *m.d.Spec.Template.DeepCopy()
	m.d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
	m.d.Generation++
	run(30 * time.Second)
	if m.d.Status.Rollback != nil {
		t.Fatal("the new try was given up at once")
	}
	run(70 * time.Second)
	second := m.d.Status.Rollback
	if second == nil || second.Generation <= first.Generation || second.Revision != first.Revision {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

// TestPauseStopsTheClock: the time of a pause doesn't count against the deadline.
func TestPauseStopsTheClock(t *testing.T) {
	m := newModel(3, appsv1.DeploymentStrategy{})
	m.broken = map[string]bool{"image:2": true}
	m.d.Spec.OnFailure, m.d.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, new(int32(60))
	m.run(t, 10*time.Second)
	m.setTemplate(2)
	m.run(t, 30*time.Second)
	pause := func(paused bool) {
		m.d.Spec.Paused = paused
		m.d.Generation++
	}
	pause(true)
	m.run(t, time.Hour)
	pause(false)
	m.run(t, 50*time.Second)
	if m.d.Status.Rollback != nil {
		t.Fatal("given up because of a pause")
	}
	m.run(t, 50*time.Second)
	if m.d.Status.Rollback == nil {
		t.Errorf("status %+v", m.d.Status)
	}
}

// TestFlappingIsNoProgress: a pod that becomes available and fails again and again makes no progress, however often it does.
func TestFlappingIsNoProgress(t *testing.T) {
	m := newModel(2, appsv1.DeploymentStrategy{})
	m.d.Spec.OnFailure, m.d.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, new(int32(60))
	fences(1, 0)(m.d)
	for i := range 400 {
		if i == 20 {
			m.setTemplate(2)
		}
		for _, name := range m.names() {
			s := m.sets[name]
			s.sync()
			flaps := s.rs.Spec.Template.Spec.Containers[0].Image == "image:2"
			for j := range s.pods {
				s.pods[j] = !flaps || (j == 0 && i%7 == 0) // never both at once
			}
			s.sync()
			s.seen = s.rs
		}
		m.reconcile(t, 1000)
		m.now = m.now.Add(time.Second)
		if m.d.Status.Rollback != nil {
			return
		}
	}
	t.Fatalf("status %+v", m.d.Status)
}

// TestMissingConfig: while config isn't there, what runs goes on, follows the size, and the Deployment says what is missing.
func TestMissingConfig(t *testing.T) {
	m := newModel(3, appsv1.DeploymentStrategy{})
	m.onConfig("")
	m.reconcile(t, 1000)
	c, _ := condition.Deployment.Get(m.d.Status.Conditions, pcorev1.ConditionReady)
	if len(m.sets) > 0 || c.Reason != reasonConfigMissing || c.Message != "ConfigMap app isn't there: the rollout waits for it." {
		t.Errorf("%d ReplicaSets, %s: %s", len(m.sets), c.Reason, c.Message)
	}
	if c, _ := progress(m.d.Status.Conditions); c.Status != corev1.ConditionFalse || c.Reason != reasonConfigMissing {
		t.Errorf("progressing %+v", c)
	}
	run := func() { m.run(t, 30*time.Second) }
	m.config = "one"
	run()
	if state, _ := m.verdict(); state != pcorev1.ConditionReady {
		t.Fatalf("status %+v", m.d.Status)
	}
	m.config = ""
	m.setTemplate(2)
	m.d.Spec.Replicas = new(int32(5))
	run()
	if diff := cmp.Diff(map[string]int32{"image:1": 5}, m.runs()); diff != "" {
		t.Error(diff)
	}
	if state, reason := m.verdict(); state != pcorev1.ConditionReconciling || reason != reasonConfigMissing {
		t.Errorf("%s, %s", state, reason)
	}
	m.config = "one"
	run()
	if diff := cmp.Diff(map[string]int32{"image:2": 5}, m.runs()); diff != "" {
		t.Error(diff)
	}
}

// TestRollbackConverges: whatever happens, the pods end up where they should: of the spec's template and the present config if that works or
// nothing was ever complete, else of the revision that was complete last. The bounds of the rolling update hold on the way, there and back.
func TestRollbackConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		surge, unavailable := fence(t, "maxSurge"), fence(t, "maxUnavailable")
		m := newModel(rapid.Int32Range(1, 8).Draw(t, "replicas"), appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}})
		m.broken = map[string]bool{"image:2": true, "image:3": rapid.Bool().Draw(t, "3 is broken, too"), "bad": true}
		m.d.Spec.OnFailure, m.d.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, new(int32(20))
		m.d.Spec.RevisionHistoryLimit = new(rapid.Int32Range(0, 2).Draw(t, "history"))
		onConfig := rapid.Bool().Draw(t, "rolls out on config")
		if onConfig {
			m.onConfig("one")
		}
		m.settle(t)
		scaled := false
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"step", "step", "step", "step", "scale", "pause", "wait", "config"}).Draw(t, "kind") {
			case "scale":
				m.d.Spec.Replicas = new(rapid.Int32Range(0, 9).Draw(t, "new size"))
				m.d.Generation++
				scaled = true
			case "pause":
				m.d.Spec.Paused = !m.d.Spec.Paused
				m.d.Generation++
			case "wait":
				m.now = m.now.Add(30 * time.Second)
			case "config":
				if onConfig {
					m.config = rapid.SampledFrom([]string{"", "one", "two", "bad"}).Draw(t, "content")
				}
			default:
				m.step(t)
			}
			m.checkOnTheWay(t, scaled)
		}
		if m.d.Spec.Paused = false; m.config == "" && onConfig {
			m.config = "two"
		}
		m.d.Generation++
		wrote := m.d.Spec.DeepCopy()
		m.settle(t)
		if diff := cmp.Diff(*wrote, m.d.Spec); diff != "" {
			t.Fatalf("the spec isn't what the user wrote: %s", diff)
		}
		m.checkInTheEnd(t)
	})
}

// checkOnTheWay: the bounds hold, and what a failure goes back to is kept.
func (m *model) checkOnTheWay(t *rapid.T, scaled bool) {
	if last := m.d.Status.LastCompleteRevision; m.sets[last] == nil {
		t.Fatalf("the last complete revision %q is gone", last)
	}
	st, err := readSettings(&m.d.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if there, available := m.totals(); !scaled && (there > st.most() || available < st.least()) {
		t.Fatalf("%d pods of at most %d, %d available of at least %d", there, st.most(), available, st.least())
	}
}

// checkInTheEnd: all pods are of one revision and available; it is the wanted one unless a rollback says why not.
func (m *model) checkInTheEnd(t *rapid.T) {
	size, back := *m.d.Spec.Replicas, m.d.Status.Rollback
	wanted := m.d.Spec.Template.Spec.Containers[0].Image
	for _, s := range m.sets {
		if len(s.pods) == 0 {
			continue
		}
		image, content := s.rs.Spec.Template.Spec.Containers[0].Image, m.contentOf(&s.rs.Spec.Template)
		if s.available() != size || s.broken {
			t.Fatalf("%d of %d pods of %s %s are available; broken are %v", s.available(), size, image, content, m.broken)
		}
		if asked := image == wanted && content == m.config; asked == (back != nil) {
			t.Fatalf("%s %s runs, %s %s is asked for, with rollback %+v", image, content, wanted, m.config, back)
		}
	}
	if back != nil && back.Revision != m.d.Status.LastCompleteRevision {
		t.Fatalf("rolled back to %s, complete last was %s", back.Revision, m.d.Status.LastCompleteRevision)
	}
	if state, _ := m.verdict(); (state == pcorev1.ConditionStalled) != (back != nil) {
		t.Fatalf("%s with rollback %+v", state, back)
	}
}
