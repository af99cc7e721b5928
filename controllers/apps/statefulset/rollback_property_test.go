// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// TestRollbackHolds: with images and config that never work, sizes that change, time that jumps, pods that fail, a cache that lags and a
// controller that dies between any two writes: the bounds hold there and back, the spec stays the user's, a rollback is explained and lasts until
// somebody tries again, and in the end the set runs what it is asked for if that works, else the revision that was complete last.
func TestRollbackHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := drawSet(t)
		set.Spec.OnFailure, set.Spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, new(int32(20))
		rolling(0, intstr.FromInt32(rapid.Int32Range(1, 3).Draw(t, "maxUnavailable")))(set)
		onConfig := rapid.Bool().Draw(t, "rolls out on config")
		if onConfig {
			set.Spec.RolloutOn = pappsv1.RolloutOnConfig
			lagging.UseConfig(&set.Spec.Template)
		}
		m := newModel(t, set)
		m.images = []string{"a", "b", badImage, badImage}
		if onConfig {
			m.SetConfig("one")
		}
		if rapid.Bool().Draw(t, "is complete at first") {
			m.settle()
		}
		rollbacks := &lagging.Rollbacks{World: m.World}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"step", "step", "step", "step", "step", "image", "config", "wait", "wait"}).Draw(t, "kind") {
			case "step":
				if m.step() == "image" {
					rollbacks.Try()
				}
			case "image":
				m.newImage()
				rollbacks.Try()
			case "config":
				if onConfig {
					m.SetConfig(rapid.SampledFrom([]string{"", "one", "two", badImage}).Draw(t, "content"))
					rollbacks.Try()
				}
			case "wait":
				m.SeeAll() // no cache is half a minute behind
				m.clock = m.clock.Add(25 * time.Second)
			}
			m.checkOnTheWay(rollbacks)
		}
		if onConfig && m.Config() == "" {
			m.SetConfig("two")
			rollbacks.Try()
		}
		size := rapid.Int32Range(1, 5).Draw(t, "size in the end")
		m.edit(func(set *pappsv1.StatefulSet) { set.Spec.Replicas = &size })
		wrote := m.set().Spec
		m.settle()
		m.checkOnTheWay(rollbacks)
		if diff := cmp.Diff(wrote, m.set().Spec); diff != "" {
			t.Fatalf("the spec isn't what the user wrote: %s", diff)
		}
		m.checkInTheEnd()
	})
}

// checkOnTheWay: a rollback keeps to its rules.
func (m *model) checkOnTheWay(rollbacks *lagging.Rollbacks) {
	m.T.Helper()
	set := m.set()
	rollbacks.Check(&set.Status.RolloutStatus, func(kind string) condition.Condition {
		c, _ := condition.StatefulSet.Get(set.Status.Conditions, kind)
		return c
	})
}

// checkInTheEnd: all pods are ready, and of what the spec and the config ask for unless a rollback says why not; then of the revision that was
// complete last. What works may have been given up, too: time passed and nobody did anything.
func (m *model) checkInTheEnd() {
	m.T.Helper()
	set := m.set()
	image, content, back, last := set.Spec.Template.Spec.Containers[0].Image, m.Config(), set.Status.Rollback, set.Status.LastCompleteRevision
	bad := image == badImage || content == badImage
	switch {
	case bad && last == "" && back == nil:
		return // there is nothing to go back to: it stays as it is
	case back == nil && bad, back != nil && back.Revision != last:
		m.T.Fatalf("%s %s is asked for, complete was %q, rollback %+v, conditions %+v", image, content, last, back, set.Status.Conditions)
	}
	pods := m.Pods()
	if len(pods) != int(*set.Spec.Replicas) {
		m.T.Fatalf("%d pods, wanted are %d", len(pods), *set.Spec.Replicas)
	}
	for _, pod := range pods {
		asked := pod.Spec.Containers[0].Image == image && m.ConfigOf(&pod.Spec.PodSpec) == content
		if !isReady(pod) || asked == (back != nil) || revisionOf(pod) != last {
			m.T.Fatalf("%s of revision %s, image %s, ready %t; %s %s is asked for, complete was %s, rollback %+v",
				pod.Name, revisionOf(pod), pod.Spec.Containers[0].Image, isReady(pod), image, content, last, back)
		}
	}
	ready, _ := condition.StatefulSet.Get(set.Status.Conditions, pcorev1.ConditionReady)
	if (ready.Status == corev1.ConditionTrue) != (back == nil) {
		m.T.Fatalf("%s %s is asked for, rollback %+v, ready is %+v", image, content, back, ready)
	}
}
