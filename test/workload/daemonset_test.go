// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

// daemonSet makes a DaemonSet with one container of image:1.
func (w *world) daemonSet(name string, change ...func(*pappsv1.DaemonSet)) *pappsv1.DaemonSet {
	w.Helper()
	labels := map[string]string{"app": name}
	d := &pappsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template = template(labels, "image:1")
	for _, c := range change {
		c(d)
	}
	w.must(w.Create(w.ctx, d))
	return d
}

func (w *world) changeDaemonSet(d *pappsv1.DaemonSet, change func(*pappsv1.DaemonSet)) {
	w.Helper()
	w.eventually("the DaemonSet takes the change", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		change(d)
		return w.Update(w.ctx, d)
	})
}

func setImage(image string) func(*pappsv1.DaemonSet) {
	return func(d *pappsv1.DaemonSet) { d.Spec.Template.Spec.Containers[0].Image = image }
}

func daemonRolling(surge, unavailable int32) func(*pappsv1.DaemonSet) {
	s, u := intstr.FromInt32(surge), intstr.FromInt32(unavailable)
	return func(d *pappsv1.DaemonSet) {
		d.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{
			Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u},
		}
	}
}

// readyDaemonSet waits until the DaemonSet says that it is ready, on that many nodes.
func (w *world) readyDaemonSet(d *pappsv1.DaemonSet, nodes int32) {
	w.Helper()
	w.eventually(fmt.Sprintf("DaemonSet %s becomes ready on %d nodes", d.Name, nodes), func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		c, _ := condition.DaemonSet.Get(d.Status.Conditions, pcorev1.ConditionReady)
		if d.Status.ObservedGeneration != d.Generation || c.Status != corev1.ConditionTrue || d.Status.DesiredNumberScheduled != nodes || d.Status.NumberAvailable != nodes {
			return fmt.Errorf("generation %d, status %+v", d.Generation, d.Status)
		}
		return nil
	})
}

// numbers waits for DESIRED, CURRENT, misscheduled and available.
func (w *world) numbers(d *pappsv1.DaemonSet, desired, current, misscheduled, available int32) {
	w.Helper()
	w.eventually("the numbers", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		st := &d.Status
		if st.DesiredNumberScheduled != desired || st.CurrentNumberScheduled != current || st.NumberMisscheduled != misscheduled || st.NumberAvailable != available {
			return fmt.Errorf("want %d %d %d %d, status %+v", desired, current, misscheduled, available, *st)
		}
		return nil
	})
}

// changeNode changes a node, whatever else writes to it.
func (w *world) changeNode(name string, change func(*pcorev1.Node)) {
	w.Helper()
	w.eventually("the node takes the change", func() error {
		var n pcorev1.Node
		if err := w.Get(w.ctx, client.ObjectKey{Name: name}, &n); err != nil {
			return err
		}
		change(&n)
		return w.Update(w.ctx, &n)
	})
}

// onEachNode fails unless there is one pod on each of that many nodes.
func (w *world) onEachNode(app string, nodes int) []pcorev1.Pod {
	w.Helper()
	pods := w.pods(app)
	seen := map[string]bool{}
	for _, p := range pods {
		seen[p.Spec.NodeName] = true
	}
	if len(pods) != nodes || len(seen) != nodes {
		w.Fatalf("%d pods on %d nodes, want one on each of %d", len(pods), len(seen), nodes)
	}
	return pods
}

func (w *world) revisions() []pappsv1.ControllerRevision {
	w.Helper()
	var list pappsv1.ControllerRevisionList
	w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
	return list.Items
}

// TestDaemonSetStory follows one DaemonSet through its life.
func TestDaemonSetStory(t *testing.T) {
	w := newWorld(t, options{nodes: 3})
	d := w.daemonSet("net")
	w.readyDaemonSet(d, 3)
	for _, p := range w.onEachNode("net", 3) {
		if p.Labels[revision.PodRevisionLabel] == "" || p.Labels["pod-template-generation"] != "1" {
			t.Errorf("pod %s has labels %v", p.Name, p.Labels)
		}
		if ref := metav1.GetControllerOf(&p); ref == nil || ref.Kind != "DaemonSet" || !strings.HasPrefix(p.Name, "net-") {
			t.Errorf("pod %s has owner %v", p.Name, ref)
		}
		if node, _ := workload.TargetNode(&pcorev1.Pod{Spec: pcorev1.PodSpec{PodSpec: corev1.PodSpec{Affinity: p.Spec.Affinity}}}); node != p.Spec.NodeName {
			t.Errorf("pod %s was meant for node %q and is on %q", p.Name, node, p.Spec.NodeName)
		}
	}
	if c := d.Status.Columns; c["nodeSelector"] != "<none>" || c["containers"] != "main" || c["images"] != "image:1" || c["selector"] != "app=net" {
		t.Errorf("columns %v", c)
	}

	// A node joins, another is cordoned, which is nothing to a daemon.
	late := w.node(w.namespace+"-late", "")
	w.changeNode(w.namespace+"-node-0", func(n *pcorev1.Node) { n.Spec.Unschedulable = true })
	w.readyDaemonSet(d, 4)
	w.onEachNode("net", 4)

	// Taints: NoSchedule leaves the pod where it is, NoExecute doesn't, and without taints it comes back.
	taint := func(effect corev1.TaintEffect) func(*pcorev1.Node) {
		return func(n *pcorev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "mine", Effect: effect})
		}
	}
	w.changeNode(late.Name, taint(corev1.TaintEffectNoSchedule))
	w.numbers(d, 3, 3, 1, 3)
	w.changeNode(late.Name, taint(corev1.TaintEffectNoExecute))
	w.numbers(d, 3, 3, 0, 3)
	w.onEachNode("net", 3)
	w.changeNode(late.Name, func(n *pcorev1.Node) { n.Spec.Taints = nil })
	w.readyDaemonSet(d, 4)

	// The node goes, and its pod with it.
	w.must(w.Delete(w.ctx, late))
	w.readyDaemonSet(d, 3)
	w.eventually("the pod of the lost node goes", func() error {
		if n := len(w.pods("net")); n != 3 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})

	// A rollout, and one back: the first revision is used again.
	w.changeDaemonSet(d, setImage("image:2"))
	w.readyDaemonSet(d, 3)
	w.onlyImage("net", "image:2")
	w.changeDaemonSet(d, setImage("image:1"))
	w.readyDaemonSet(d, 3)
	w.onlyImage("net", "image:1")
	revisions := w.revisions()
	numbers := map[int64]bool{}
	for _, rev := range revisions {
		numbers[rev.Revision] = true
	}
	if len(revisions) != 2 || !numbers[2] || !numbers[3] {
		t.Errorf("revisions %v after going back, want 2 and 3", numbers)
	}

	// Only some nodes.
	w.changeDaemonSet(d, func(d *pappsv1.DaemonSet) {
		d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: w.namespace + "-node-1"}
	})
	w.readyDaemonSet(d, 1)
	w.eventually("one pod stays", func() error {
		if pods := w.pods("net"); len(pods) != 1 || pods[0].Spec.NodeName != w.namespace+"-node-1" {
			return fmt.Errorf("%d pods", len(pods))
		}
		return nil
	})
	if got := d.Status.Columns["nodeSelector"]; got != corev1.LabelHostname+"="+w.namespace+"-node-1" {
		t.Errorf("column %q", got)
	}

	w.must(w.Delete(w.ctx, d))
	w.eventually("everything goes with the DaemonSet", func() error {
		var list pcorev1.PodList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		if n := len(w.revisions()); n+len(list.Items) > 0 {
			return fmt.Errorf("%d revisions and %d pods are left", n, len(list.Items))
		}
		return nil
	})
}

// rollDaemonSet changes the image and looks at every state that it sees on the way: count gets, for each node, the number of ready pods, of
// pods that aren't deleted, and of those that are new and not ready.
func (w *world) rollDaemonSet(d *pappsv1.DaemonSet, nodes int, look func(down, doubled, surging int)) {
	w.Helper()
	w.changeDaemonSet(d, setImage("image:2"))
	w.eventually("the rollout ends", func() error {
		ready, there, unready := map[string]int{}, map[string]int{}, 0
		updated := 0
		for _, p := range w.pods("net") {
			node, _ := workload.TargetNode(&p)
			there[node]++
			isReady := workload.IsReady(&p)
			if isReady {
				ready[node]++
			}
			if p.Spec.Containers[0].Image == "image:2" {
				if isReady {
					updated++
				} else {
					unready++
				}
			}
		}
		doubled := 0
		for node, n := range there {
			if n > 2 {
				w.Fatalf("%d pods on node %s", n, node)
			}
			if n == 2 {
				doubled++
			}
		}
		look(nodes-len(ready), doubled, unready)
		if updated != nodes || doubled > 0 {
			return fmt.Errorf("%d of %d updated", updated, nodes)
		}
		return nil
	})
	w.readyDaemonSet(d, int32(nodes))
}

// TestDaemonSetBounds: during a rollout, never more nodes without a pod than allowed, and never two pods on a node.
func TestDaemonSetBounds(t *testing.T) {
	w := newWorld(t, options{nodes: 6})
	d := w.daemonSet("net", daemonRolling(0, 2))
	w.readyDaemonSet(d, 6)
	census := w.census()
	w.rollDaemonSet(d, 6, func(down, doubled, _ int) {
		if down > 2 || doubled > 0 {
			t.Fatalf("%d nodes without a ready pod, %d with two", down, doubled)
		}
	})
	w.eventually("six pods were made", func() error {
		if n := census.count(); n != 12 { // the watch shows the first six, too
			return fmt.Errorf("%d pods seen", n)
		}
		return nil
	})
}

// TestDaemonSetSurge: during a rollout that surges, every node has a ready pod at all times, and few have two.
func TestDaemonSetSurge(t *testing.T) {
	w := newWorld(t, options{nodes: 6})
	d := w.daemonSet("net", daemonRolling(2, 0))
	w.readyDaemonSet(d, 6)
	w.rollDaemonSet(d, 6, func(down, _, surging int) {
		if down > 0 || surging > 2 {
			t.Fatalf("%d nodes without a ready pod, %d new pods that aren't ready", down, surging)
		}
	})
	w.onEachNode("net", 6)
}

// TestDaemonSetOnDelete: only what is deleted comes back new.
func TestDaemonSetOnDelete(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	d := w.daemonSet("net", func(d *pappsv1.DaemonSet) { d.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType })
	w.readyDaemonSet(d, 2)
	w.changeDaemonSet(d, setImage("image:2"))
	w.readyDaemonSet(d, 2)
	if d.Status.UpdatedNumberScheduled != 0 {
		t.Fatalf("%d updated by themselves", d.Status.UpdatedNumberScheduled)
	}
	pods := w.pods("net")
	w.must(w.Delete(w.ctx, &pods[0]))
	w.eventually("one is new", func() error {
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
		if d.Status.UpdatedNumberScheduled != 1 || d.Status.NumberAvailable != 2 {
			return fmt.Errorf("status %+v", d.Status)
		}
		return nil
	})
	images := map[string]int{}
	for _, p := range w.onEachNode("net", 2) {
		images[p.Spec.Containers[0].Image]++
	}
	if images["image:1"] != 1 || images["image:2"] != 1 {
		t.Errorf("images %v", images)
	}
}

// TestDaemonSetSaysWhy: the DaemonSet itself names what keeps it from being ready: no room on a node, an image that isn't there.
func TestDaemonSetSaysWhy(t *testing.T) {
	w := newWorld(t, options{nodes: 2, cpu: "1"})
	large := w.node(w.namespace+"-large", "8")
	says := func(d *pappsv1.DaemonSet, reason, message string) {
		t.Helper()
		w.eventually("the DaemonSet says "+reason, func() error {
			w.must(w.Get(w.ctx, client.ObjectKeyFromObject(d), d))
			c, _ := condition.DaemonSet.Get(d.Status.Conditions, pcorev1.ConditionReady)
			if c.Status != corev1.ConditionFalse || c.Reason != reason || !strings.HasSuffix(c.Message, message) {
				return fmt.Errorf("condition %+v", c)
			}
			return nil
		})
	}
	big := w.daemonSet("big", func(d *pappsv1.DaemonSet) {
		d.Spec.Template.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = *intQuantity(3)
	})
	says(big, "Unschedulable", "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].")
	w.numbers(big, 3, 3, 0, 1)
	w.changeNode(w.namespace+"-node-0", func(n *pcorev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "small", Effect: corev1.TaintEffectNoExecute}}
	})
	w.changeNode(w.namespace+"-node-1", func(n *pcorev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "small", Effect: corev1.TaintEffectNoExecute}}
	})
	w.readyDaemonSet(big, 1)
	if pods := w.onEachNode("big", 1); pods[0].Spec.NodeName != large.Name {
		t.Errorf("the pod is on %s", pods[0].Spec.NodeName)
	}

	w.agent.breakImage("image:bad")
	bad := w.daemonSet("bad", setImage("image:bad"))
	says(bad, "ImagePullBackOff", "is waiting: ImagePullBackOff: the image isn't there.")
	w.changeDaemonSet(bad, setImage("image:2"))
	w.readyDaemonSet(bad, 1)
}

// TestFailedDaemonPod: a pod that failed is replaced, and an event tells of it.
func TestFailedDaemonPod(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	d := w.daemonSet("net")
	w.readyDaemonSet(d, 2)
	victim := w.pods("net")[0]
	w.eventually("the pod fails", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(&victim), &victim); err != nil {
			return err
		}
		victim.Status.Phase, victim.Status.Reason, victim.Status.Message = corev1.PodFailed, "Evicted", "The node was low on memory."
		victim.Status.Conditions = nil
		return w.Status().Update(w.ctx, &victim)
	})
	w.eventually("another one takes its place", func() error {
		pods := w.pods("net")
		for _, p := range pods {
			if p.UID == victim.UID {
				return errNotYet
			}
		}
		if len(pods) != 2 { // the status may still be the one from before
			return errNotYet
		}
		return nil
	})
	w.readyDaemonSet(d, 2)
	w.onEachNode("net", 2)
	w.eventually("an event tells", func() error {
		var list eventsv1.EventList
		w.must(w.List(w.ctx, &list, client.InNamespace(w.namespace)))
		for _, e := range list.Items {
			if e.Reason == "FailedDaemonPod" && e.Regarding.Name == "net" && strings.Contains(e.Note, victim.Name) && strings.Contains(e.Note, "Evicted: The node was low on memory.") {
				return nil
			}
		}
		return fmt.Errorf("%d events", len(list.Items))
	})
}

// TestDaemonSetAdoption: pods and revisions that were orphaned are taken over by the next DaemonSet with the same template; a pod whose labels are
// changed is let go.
func TestDaemonSetAdoption(t *testing.T) {
	w := newWorld(t, options{nodes: 2})
	census := w.census()
	d := w.daemonSet("net")
	w.readyDaemonSet(d, 2)
	w.must(w.Delete(w.ctx, d, client.PropagationPolicy(metav1.DeletePropagationOrphan)))
	w.eventually("the DaemonSet is gone", func() error {
		if err := w.Get(w.ctx, client.ObjectKeyFromObject(d), d); client.IgnoreNotFound(err) != nil || err == nil {
			return orNotYet(err)
		}
		return nil
	})
	d = w.daemonSet("net")
	w.readyDaemonSet(d, 2)
	if n, revisions := census.count(), w.revisions(); n != 2 || len(revisions) != 1 || !metav1.IsControlledBy(&revisions[0], d) {
		t.Fatalf("%d pods made, %d revisions", n, len(revisions))
	}
	pod := w.pods("net")[0]
	pod.Labels["app"] = "out-of-service"
	w.must(w.Update(w.ctx, &pod))
	w.eventually("the pod is released and replaced", func() error {
		var fresh pcorev1.Pod
		w.must(w.Get(w.ctx, client.ObjectKeyFromObject(&pod), &fresh))
		if metav1.GetControllerOf(&fresh) != nil || len(w.pods("net")) != 2 {
			return errNotYet
		}
		return nil
	})
	w.readyDaemonSet(d, 2)
}

// TestDaemonSetCollision: when the name of the new revision is taken, the collision count leads to another.
func TestDaemonSetCollision(t *testing.T) {
	w := newWorld(t, options{nodes: 1})
	d := &pappsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "net", Namespace: w.namespace}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "net"}}
	d.Spec.Template = template(d.Spec.Selector.MatchLabels, "image:1")
	w.must(w.Create(w.ctx, d, client.DryRunAll)) // fills the defaults in
	d.ResourceVersion, d.UID = "", ""
	owner := revision.HistoryOwner{Object: d, Kind: pappsv1.GroupVersion.WithKind("DaemonSet"), HashLabel: revision.PodRevisionLabel}
	rev, err := revision.NewRevision(owner, revision.Snapshot{Template: &d.Spec.Template}, 1, new(int32))
	w.must(err)
	other := template(map[string]string{"app": "other"}, "image:3")
	rev.Data, err = revision.Data(&other)
	w.must(err)
	rev.OwnerReferences, rev.Labels = nil, nil
	w.must(w.Create(w.ctx, rev))
	w.must(w.Create(w.ctx, d))
	w.readyDaemonSet(d, 1)
	if c := d.Status.CollisionCount; c == nil || *c != 1 {
		t.Errorf("collision count %v", c)
	}
	if n := len(w.revisions()); n != 2 {
		t.Errorf("%d revisions", n)
	}
}

// TestDaemonSetFaults: with every write failing, timing out after it was carried out, and meeting a conflict, a DaemonSet is created and rolled out
// within its bounds, and no pod is made twice.
func TestDaemonSetFaults(t *testing.T) {
	for name, change := range map[string]func(*pappsv1.DaemonSet){"swap": daemonRolling(0, 1), "surge": daemonRolling(1, 0)} {
		t.Run(name, func(t *testing.T) {
			f := newFaults()
			w := newWorld(t, options{nodes: 3, wrap: f.wrap})
			census := w.census()
			d := w.daemonSet("net", change, func(d *pappsv1.DaemonSet) { d.Spec.RevisionHistoryLimit = new(int32(0)) })
			w.readyDaemonSet(d, 3)
			w.onEachNode("net", 3)
			w.rollDaemonSet(d, 3, func(down, doubled, _ int) {
				if name == "swap" && (down > 1 || doubled > 0) || name == "surge" && (down > 0 || doubled > 2) {
					t.Fatalf("%d nodes without a ready pod, %d with two", down, doubled)
				}
			})
			w.onEachNode("net", 3)
			w.eventually("six pods were made for three nodes and a rollout", func() error {
				if n := census.count(); n != 6 {
					return fmt.Errorf("%d pods", n)
				}
				return nil
			})
			w.eventually("the old revision goes", func() error {
				if n := len(w.revisions()); n != 1 {
					return fmt.Errorf("%d revisions", n)
				}
				return nil
			})
			for _, verb := range []string{
				"create *v1.Pod", "create *v1.ControllerRevision", "delete *v1.Pod", "delete *v1.ControllerRevision", "update status *v1.DaemonSet",
			} {
				if f.struck[verb] == 0 {
					t.Errorf("no fault struck %q; struck were %v", verb, f.struck)
				}
			}
		})
	}
}

// TestDaemonSetNewLeader: another manager takes over in the middle of a rollout, knowing nothing of what the first one wrote last.
func TestDaemonSetNewLeader(t *testing.T) {
	w := newWorld(t, options{nodes: 8})
	census := w.census()
	d := w.daemonSet("net", daemonRolling(0, 4))
	w.restart()
	w.readyDaemonSet(d, 8)
	w.changeDaemonSet(d, setImage("image:2"))
	w.restart()
	w.readyDaemonSet(d, 8)
	w.onEachNode("net", 8)
	w.onlyImage("net", "image:2")
	if n := census.count(); n != 16 {
		t.Errorf("%d pods were made for 8 and a rollout of 8", n)
	}
}

// TestDaemonSetWriteBudget: two writes for a pod, its creation and its binding, and a handful for the rest. PINNACE_NODES makes it larger; it then
// tells the rate.
func TestDaemonSetWriteBudget(t *testing.T) {
	nodes := fromEnv("PINNACE_NODES", 10)
	y := &tally{count: map[string]int{}}
	w := newWorld(t, options{nodes: nodes, wrap: y.wrap})
	began := time.Now()
	d := w.daemonSet("net", daemonRolling(0, int32(max(1, nodes/10))))
	w.readyDaemonSet(d, int32(nodes))
	took := time.Since(began)
	t.Logf("%d pods ready after %s: %.0f pods/s; writes %v", nodes, took.Round(time.Millisecond), float64(nodes)/took.Seconds(), y.count)
	for verb, most := range map[string]int{
		"create *v1.Pod": nodes, "patch *v1.PartialObjectMetadata": nodes, "create *v1.ControllerRevision": 1,
		"update status *v1.Pod": 0, "update status *v1.DaemonSet": 4 + nodes/20,
	} {
		if n := y.get(verb); n > most {
			t.Errorf("%d times %q for %d pods, at most %d", n, verb, nodes, most)
		}
	}
	began = time.Now()
	w.changeDaemonSet(d, setImage("image:2"))
	w.readyDaemonSet(d, int32(nodes))
	t.Logf("rolled out after %s; writes %v", time.Since(began).Round(time.Millisecond), y.count)
}
