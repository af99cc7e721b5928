// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
	"github.com/pinnace-dev/pinnace/test/lagging"
)

// TestRollbackHolds: with templates and config that never work, time that jumps, a cache that lags and a controller that dies between any two
// writes: the bounds hold there and back, the spec stays the user's, a rollback is explained and lasts until somebody tries again, and in the
// end each node runs what is asked for if that works, else the revision that was complete last.
func TestRollbackHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		strategy, bound, surge := drawStrategy(t)
		nodes, onConfig := rapid.IntRange(1, 4).Draw(t, "nodes"), rapid.Bool().Draw(t, "rolls out on config")
		m := newModel(t, nodes, strategy, func(spec *pappsv1.DaemonSetSpec) {
			spec.OnFailure, spec.ProgressDeadlineSeconds = pappsv1.FailureRollback, new(int32(20))
			spec.RevisionHistoryLimit = new(rapid.Int32Range(0, 2).Draw(t, "history"))
			if onConfig {
				spec.RolloutOn = pappsv1.RolloutOnConfig
				lagging.UseConfig(&spec.Template)
			}
		})
		if onConfig {
			m.SetConfig("one")
		}
		m.rest(3, time.Second)
		rollbacks := &lagging.Rollbacks{World: m.World}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			m.stepOfRollout(rollbacks, onConfig)
			m.checkOnTheWay(rollbacks)
			least := nodes - bound
			if surge {
				least = nodes
			}
			if up, doubled := m.count(); up < least || !surge && doubled > 0 {
				t.Fatalf("by %d, surging %t: %d of %d nodes have a ready pod, %d hold two", bound, surge, up, nodes, doubled)
			}
		}
		if onConfig && m.Config() == "" {
			m.SetConfig("two")
			rollbacks.Try()
		}
		wrote := m.set().Spec
		m.rest(30, time.Second) // longer than the deadline
		m.checkOnTheWay(rollbacks)
		if diff := cmp.Diff(wrote, m.set().Spec); diff != "" {
			t.Fatalf("the spec isn't what the user wrote: %s", diff)
		}
		m.checkInTheEnd()
	})
}

// stepOfRollout lets one thing happen that isn't a failure of a pod by itself.
func (m *model) stepOfRollout(rollbacks *lagging.Rollbacks, onConfig bool) {
	what := rapid.SampledFrom([]string{
		"reconcile", "reconcile", "reconcile", "see", "see", "act", "act", "act", "act", "crash", "template", "config", "wait", "wait",
	}).Draw(m.T, "event")
	switch what {
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
		m.newVersion(rapid.SampledFrom([]string{"1", "2", badVersion, badVersion}).Draw(m.T, "version"))
		rollbacks.Try()
	case "config":
		if onConfig {
			m.SetConfig(rapid.SampledFrom([]string{"", "one", "two", badVersion}).Draw(m.T, "content"))
			rollbacks.Try()
		}
	case "wait":
		m.SeeAll() // no cache is half a minute behind
		m.ahead += 25 * time.Second
	}
}

// checkOnTheWay: a rollback keeps to its rules.
func (m *model) checkOnTheWay(rollbacks *lagging.Rollbacks) {
	m.T.Helper()
	set := m.set()
	rollbacks.Check(&set.Status.RolloutStatus, func(kind string) condition.Condition {
		c, _ := condition.DaemonSet.Get(set.Status.Conditions, kind)
		return c
	})
}

// checkInTheEnd: each node has one pod, which is ready, and of what the spec and the config ask for unless a rollback says why not; then of the
// revision that was complete last. What works may have been given up, too: time passed and nobody did anything.
func (m *model) checkInTheEnd() {
	m.T.Helper()
	set, active := m.set(), m.active()
	version, content, back := set.Spec.Template.Labels["version"], m.Config(), set.Status.Rollback
	if bad := version == badVersion || content == badVersion; bad && back == nil || back != nil && back.Revision != set.Status.LastCompleteRevision {
		m.T.Fatalf("%s %s is asked for, rollback %+v, status %+v", version, content, back, set.Status)
	}
	last := set.Status.LastCompleteRevision
	for _, rev := range lagging.Items[*pappsv1.ControllerRevision](m.World, &pappsv1.ControllerRevisionList{}) {
		if rev.Name == last {
			last = rev.Labels[revision.PodRevisionLabel]
		}
	}
	for _, node := range m.nodes() {
		pods := active[node.Name]
		if len(pods) != 1 || !workload.IsReady(pods[0]) || pods[0].Labels[revision.PodRevisionLabel] != last {
			m.T.Fatalf("node %s has %d pods; %s %s is asked for, complete was %s, rollback %+v", node.Name, len(pods), version, content, last, back)
		}
		if asked := pods[0].Labels["version"] == version && m.ConfigOf(&pods[0].Spec.PodSpec) == content; asked == (back != nil) {
			m.T.Fatalf("pod %s is of version %s; %s %s is asked for, rollback %+v", pods[0].Name, pods[0].Labels["version"], version, content, back)
		}
	}
	updated := set.Status.UpdatedNumberScheduled
	ready, _ := condition.DaemonSet.Get(set.Status.Conditions, pcorev1.ConditionReady)
	if (ready.Status == corev1.ConditionTrue) != (back == nil) || (updated == 0) != (back != nil) {
		m.T.Fatalf("%s %s is asked for, %d are updated, rollback %+v, ready is %+v", version, content, updated, back, ready)
	}
}
