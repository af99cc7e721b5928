// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
)

// rolledBack waits until a StatefulSet or DaemonSet says in its present generation that it was rolled back, for that reason.
func (w *world) rolledBack(obj client.Object, reason string) *pappsv1.RollbackStatus {
	w.Helper()
	var back *pappsv1.RollbackStatus
	w.eventually(obj.GetName()+" is rolled back", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(obj), obj))
		var c condition.Condition
		var observed int64
		switch o := obj.(type) {
		case *pappsv1.StatefulSet:
			c, _ = condition.StatefulSet.Get(o.Status.Conditions, pcorev1.ConditionStalled)
			observed, back = o.Status.ObservedGeneration, o.Status.Rollback
		case *pappsv1.DaemonSet:
			c, _ = condition.DaemonSet.Get(o.Status.Conditions, pcorev1.ConditionStalled)
			observed, back = o.Status.ObservedGeneration, o.Status.Rollback
		}
		if back == nil || c.Status != corev1.ConditionTrue || c.Reason != reason || !strings.HasPrefix(c.Message, "Rolled back to ") || observed != obj.GetGeneration() {
			return fmt.Errorf("condition %+v, rollback %+v", c, back)
		}
		return nil
	})
	return back
}

func setOnFailure(deadline int32) func(*pappsv1.StatefulSet) {
	return func(s *pappsv1.StatefulSet) {
		s.Spec.OnFailure, s.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, &deadline
	}
}

func setOnConfig(s *pappsv1.StatefulSet) {
	s.Spec.RolloutOn = pappsv1.RolloutOnConfig
	referTo(&s.Spec.Template, "app")
}

// TestStatefulSetRollsBack: the pod that fails is replaced by one of the old revision; scaling doesn't try again, a change does.
func TestStatefulSetRollsBack(t *testing.T) {
	for _, policy := range []appsv1.PodManagementPolicyType{appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t, options{nodes: 2})
			w.agent.breakImage("image:bad")
			s := w.statefulSet("db", 3, setOnFailure(2), func(s *pappsv1.StatefulSet) { s.Spec.PodManagementPolicy = policy })
			w.setReady(s)
			good := s.Status.LastCompleteRevision
			w.changeSet(s, stsImage("image:bad"))
			if back := w.rolledBack(s, "ImagePullBackOff"); back.Revision != good {
				t.Errorf("rollback %+v, complete was %s", back, good)
			}
			w.settles("db", 3, runs("image:1"))
			w.changeSet(s, func(s *pappsv1.StatefulSet) { s.Spec.Replicas = new(int32(4)) })
			w.settles("db", 4, runs("image:1"))
			w.rolledBack(s, "ImagePullBackOff")
			w.changeSet(s, stsImage("image:2"))
			w.setReady(s)
			w.settles("db", 4, runs("image:2"))
			if s.Status.Rollback != nil {
				t.Errorf("status %+v", s.Status.RolloutStatus)
			}
		})
	}
}

// TestStatefulSetOnConfig: a change of config rolls out, one that breaks the pods is rolled back to the content of before, and all that though
// every write goes wrong in three ways.
func TestStatefulSetOnConfig(t *testing.T) {
	f := newFaults()
	w := newWorld(t, options{nodes: 2, wrap: f.wrap})
	w.failOn("bad")
	w.configMap("app", "one")
	s := w.statefulSet("db", 2, setOnFailure(4), setOnConfig)
	w.eventually("the StatefulSet says what is missing", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(s), s))
		if c, _ := condition.StatefulSet.Get(s.Status.Conditions, pcorev1.ConditionReady); c.Reason != "ConfigMissing" {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.secret("app", "1")
	w.setReady(s)
	w.settles("db", 2, w.reads("one", "1"))
	w.configMap("app", "bad")
	w.rolledBack(s, "ImagePullBackOff")
	w.settles("db", 2, w.reads("one", "1"))
	w.secret("app", "2")
	w.configMap("app", "two")
	w.settles("db", 2, w.reads("two", "2"))
	w.setReady(s)
	if s.Generation != 1 || s.Status.Rollback != nil {
		t.Errorf("generation %d, status %+v", s.Generation, s.Status.RolloutStatus)
	}
	w.must(w.Delete(w.ctx, s))
	w.eventually("the snapshots go with the StatefulSet", func() error {
		if got := w.snapshots(); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

func daemonOnFailure(deadline int32) func(*pappsv1.DaemonSet) {
	return func(d *pappsv1.DaemonSet) {
		d.Spec.OnFailure, d.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, &deadline
	}
}

// TestDaemonSetRollsBack: the node whose pod fails gets its old one back, with deletion first and with surge.
func TestDaemonSetRollsBack(t *testing.T) {
	for what, strategy := range map[string]func(*pappsv1.DaemonSet){"unavailable": daemonRolling(0, 1), "surge": daemonRolling(1, 0)} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, options{nodes: 3})
			w.agent.breakImage("image:bad")
			d := w.daemonSet("net", daemonOnFailure(2), strategy)
			w.readyDaemonSet(d, 3)
			good := d.Status.LastCompleteRevision
			w.changeDaemonSet(d, setImage("image:bad"))
			if back := w.rolledBack(d, "ImagePullBackOff"); back.Revision != good {
				t.Errorf("rollback %+v, complete was %s", back, good)
			}
			w.settles("net", 3, runs("image:1"))
			w.eventually("none counts as updated", func() error {
				w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
				if d.Status.UpdatedNumberScheduled != 0 || d.Status.NumberAvailable != 3 {
					return fmt.Errorf("status %+v", d.Status)
				}
				return nil
			})
			w.restart()
			w.changeDaemonSet(d, setImage("image:2"))
			w.readyDaemonSet(d, 3)
			w.settles("net", 3, runs("image:2"))
			if d.Status.Rollback != nil {
				t.Errorf("status %+v", d.Status.RolloutStatus)
			}
		})
	}
}

// TestDaemonSetOnConfig is TestStatefulSetOnConfig for a DaemonSet.
func TestDaemonSetOnConfig(t *testing.T) {
	f := newFaults()
	w := newWorld(t, options{nodes: 2, wrap: f.wrap})
	w.failOn("bad")
	w.configMap("app", "one")
	d := w.daemonSet("net", daemonOnFailure(4), func(d *pappsv1.DaemonSet) {
		d.Spec.RolloutOn = pappsv1.RolloutOnConfig
		referTo(&d.Spec.Template, "app")
	})
	w.eventually("the DaemonSet says what is missing", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		if c, _ := condition.DaemonSet.Get(d.Status.Conditions, pcorev1.ConditionReady); c.Reason != "ConfigMissing" {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	w.secret("app", "1")
	w.readyDaemonSet(d, 2)
	w.settles("net", 2, w.reads("one", "1"))
	w.configMap("app", "bad")
	w.rolledBack(d, "ImagePullBackOff")
	w.settles("net", 2, w.reads("one", "1"))
	w.configMap("app", "two")
	w.settles("net", 2, w.reads("two", "1"))
	w.readyDaemonSet(d, 2)
	if d.Generation != 1 || d.Status.Rollback != nil {
		t.Errorf("generation %d, status %+v", d.Generation, d.Status.RolloutStatus)
	}
	w.must(w.Delete(w.ctx, d))
	w.eventually("the snapshots go with the DaemonSet", func() error {
		if got := w.snapshots(); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// TestDeadlineBeyondMinReady: a deadline that no rollout can keep is refused, in one sentence.
func TestDeadlineBeyondMinReady(t *testing.T) {
	w := newWorld(t, options{})
	s := &pappsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: w.namespace}}
	s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}
	s.Spec.Template = template(s.Spec.Selector.MatchLabels, "image:1")
	s.Spec.MinReadySeconds = 10
	setOnFailure(10)(s)
	err := w.Create(w.ctx, s)
	if err == nil || !strings.Contains(err.Error(), "with onFailure, progressDeadlineSeconds (600 when absent) must be greater than minReadySeconds.") {
		t.Errorf("%v", err)
	}
	s.Spec.OnFailure = ""
	w.must(w.Create(w.ctx, s))
	d := &pappsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "net", Namespace: w.namespace}}
	d.Spec.Selector, d.Spec.Template, d.Spec.MinReadySeconds = s.Spec.Selector, s.Spec.Template, 600
	d.Spec.OnFailure = pappsv1.FailureRollback
	if err := w.Create(w.ctx, d); err == nil || !strings.Contains(err.Error(), "must be greater than minReadySeconds.") {
		t.Errorf("%v", err)
	}
}
