// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	pappsv1 "github.com/pinnace-dev/pinnace/api/apps/v1"
	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	"github.com/pinnace-dev/pinnace/internal/condition"
	"github.com/pinnace-dev/pinnace/internal/placement"
	"github.com/pinnace-dev/pinnace/internal/revision"
	"github.com/pinnace-dev/pinnace/internal/workload"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newScope is a DaemonSet whose newest revision is "new", and nodes.
func newScope(t testing.TB, change func(*pappsv1.DaemonSetSpec), nodes ...*pcorev1.Node) *scope {
	t.Helper()
	set := &pappsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "net", Namespace: "test", UID: "set", Generation: 1}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "net"}}
	set.Spec.Template.Labels = map[string]string{"app": "net"}
	if change != nil {
		change(&set.Spec)
	}
	s := &scope{set: set, nodes: nodes, now: epoch.Add(time.Hour), backoff: &workload.NodeBackoff{}}
	var err error
	if s.settings, err = readSettings(&set.Spec); err != nil {
		t.Fatal(err)
	}
	s.aim(nil, makeRevision("new", 2))
	s.match = placement.NewNodeMatcher(workload.WithDaemonTolerations(&set.Spec.Template.Spec))
	return s
}

func makeRevision(hash string, number int64) *pappsv1.ControllerRevision {
	rev := &pappsv1.ControllerRevision{Revision: number}
	rev.Name = "net-" + hash
	rev.Labels = map[string]string{revision.PodRevisionLabel: hash}
	return rev
}

func makeNode(name string, taints ...string) *pcorev1.Node {
	n := &pcorev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	for _, taint := range taints {
		key, effect, _ := strings.Cut(taint, ":")
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffect(effect)})
	}
	return n
}

// makePod reads a pod from words: name, node, revision, and any of ready, failed, ended, dying, unplaced.
func makePod(words string) *pcorev1.Pod {
	f := strings.Fields(words)
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: f[0], Namespace: "test", UID: types.UID(f[0]), CreationTimestamp: metav1.NewTime(epoch),
		Labels: map[string]string{"app": "net", revision.PodRevisionLabel: f[2]},
	}}
	p.Spec.NodeName = f[1]
	p.Status.Phase = corev1.PodPending
	for _, word := range f[3:] {
		switch word {
		case "ready":
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(epoch.Add(time.Hour - 30*time.Second))}}
		case "failed":
			p.Status.Phase = corev1.PodFailed
		case "ended":
			p.Status.Phase = corev1.PodSucceeded
		case "dying":
			now := metav1.NewTime(epoch)
			p.DeletionTimestamp = &now
		case "younger":
			p.CreationTimestamp = metav1.NewTime(epoch.Add(time.Minute))
		case "unplaced":
			p.Spec.NodeName, p.Spec.Affinity = "", workload.PinToNode(nil, f[1])
		default:
			panic(word)
		}
	}
	return p
}

func rolling(surge, unavailable string) func(*pappsv1.DaemonSetSpec) {
	return func(spec *pappsv1.DaemonSetSpec) {
		s, u := intstr.Parse(surge), intstr.Parse(unavailable)
		spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u}}
	}
}

func onDelete(spec *pappsv1.DaemonSetSpec) { spec.UpdateStrategy.Type = "OnDelete" }

// summary is a plan in words: +node for a creation, -pod for a deletion.
func summary(p plan) string {
	var out []string
	for _, c := range p.create {
		out = append(out, "+"+c.node)
	}
	for _, pod := range p.remove {
		out = append(out, "-"+pod.Name)
	}
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	a, b, c := makeNode("a"), makeNode("b"), makeNode("c")
	for _, tt := range []struct {
		name  string
		spec  func(*pappsv1.DaemonSetSpec)
		nodes []*pcorev1.Node
		pods  []string
		want  string
	}{
		{name: "a pod for each node", nodes: []*pcorev1.Node{b, a}, want: "+a +b"},
		{name: "nothing is missing", nodes: []*pcorev1.Node{a}, pods: []string{"p a new"}},
		{name: "a pod that waits for its node counts", nodes: []*pcorev1.Node{a}, pods: []string{"p a new unplaced"}},
		{name: "a pod that is ending keeps the next one out", nodes: []*pcorev1.Node{a}, pods: []string{"p a new ready dying"}},
		{name: "…but not when the set surges", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a}, pods: []string{"p a new ready dying"}, want: "+a"},
		{name: "a failed pod that is deleted doesn't count", nodes: []*pcorev1.Node{a}, pods: []string{"p a new failed dying"}, want: "+a"},
		{name: "a failed pod goes", nodes: []*pcorev1.Node{a}, pods: []string{"p a new failed"}, want: "-p"},
		{name: "a pod that ended goes", nodes: []*pcorev1.Node{a}, pods: []string{"p a new ended"}, want: "-p"},
		{name: "of two pods the oldest stays", nodes: []*pcorev1.Node{a}, pods: []string{"q a new younger", "p a new"}, want: "-q"},
		{name: "a placed pod stays rather than an older unplaced one", nodes: []*pcorev1.Node{a}, pods: []string{"q a new younger", "p a new unplaced"}, want: "-p"},
		{
			name: "taints keep pods away; those of daemons don't", nodes: []*pcorev1.Node{
				makeNode("a", "mine:NoSchedule"), makeNode("b", "mine:NoExecute"), makeNode("c", "mine:PreferNoSchedule"),
				makeNode("d", corev1.TaintNodeUnschedulable+":NoSchedule"), makeNode("e", corev1.TaintNodeNotReady+":NoExecute"),
				makeNode("f", corev1.TaintNodeUnreachable+":NoExecute"), makeNode("g", corev1.TaintNodeDiskPressure+":NoSchedule"),
				makeNode("h", corev1.TaintNodeMemoryPressure+":NoSchedule"), makeNode("i", corev1.TaintNodePIDPressure+":NoSchedule"),
				makeNode("j", corev1.TaintNodeNetworkUnavailable+":NoSchedule"), makeNode("k", corev1.TaintNodeNotReady+":NoSchedule"),
			},
			want: "+c +d +e +f +g +h +i",
		},
		{
			name: "a pod on the host's network needs no pod network", spec: func(spec *pappsv1.DaemonSetSpec) { spec.Template.Spec.HostNetwork = true },
			nodes: []*pcorev1.Node{makeNode("a", corev1.TaintNodeNetworkUnavailable+":NoSchedule")}, want: "+a",
		},
		{
			name: "NoSchedule leaves a pod where it is, NoExecute doesn't", nodes: []*pcorev1.Node{makeNode("a", "mine:NoSchedule"), makeNode("b", "mine:NoExecute")},
			pods: []string{"p a new", "q b new"}, want: "-q",
		},
		{name: "a failed pod goes where no new one may start", nodes: []*pcorev1.Node{makeNode("a", "mine:NoSchedule")}, pods: []string{"p a new failed"}, want: "-p"},
		{
			name: "a node that the selector doesn't pick", spec: func(spec *pappsv1.DaemonSetSpec) {
				spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "b"}
			},
			nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new"}, want: "+b -p",
		},
		{
			name: "a node that the affinity doesn't pick", spec: func(spec *pappsv1.DaemonSetSpec) { spec.Template.Spec.Affinity = workload.PinToNode(nil, "b") },
			nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new"}, want: "+b -p",
		},
		{
			name: "a node that the template doesn't name", spec: func(spec *pappsv1.DaemonSetSpec) { spec.Template.Spec.NodeName = "b" },
			nodes: []*pcorev1.Node{a, b}, want: "+b",
		},
		{name: "a pod that waits for a node that is gone", nodes: []*pcorev1.Node{a}, pods: []string{"p a new", "q b new unplaced", "r b new"}, want: "-q"},

		{name: "one at a time by default", nodes: []*pcorev1.Node{a, b}, pods: []string{"p a old ready", "q b old ready"}, want: "-p"},
		{name: "as many as allowed", spec: rolling("0", "2"), nodes: []*pcorev1.Node{a, b, c}, pods: []string{"p a old ready", "q b old ready", "r c old ready"}, want: "-p -q"},
		{name: "a percentage is rounded up", spec: rolling("0", "34%"), nodes: []*pcorev1.Node{a, b, c}, pods: []string{"p a old ready", "q b old ready", "r c old ready"}, want: "-p -q"},
		{name: "a new pod that isn't available counts", nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new", "q b old ready"}},
		{name: "a pod that is ending counts", nodes: []*pcorev1.Node{a, b}, pods: []string{"p a old ready dying", "q b old ready"}},
		{name: "old pods that aren't available go at once", nodes: []*pcorev1.Node{a, b, c}, pods: []string{"p a old", "q b old", "r c old ready"}, want: "-p -q"},
		{
			name: "available takes its time", spec: func(spec *pappsv1.DaemonSetSpec) { spec.MinReadySeconds = 31 },
			nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new ready", "q b old ready"}, want: "-q",
		},
		{
			name: "a lost node doesn't hold the others up", nodes: []*pcorev1.Node{makeNode("a", corev1.TaintNodeUnreachable+":NoSchedule"), b, c},
			pods: []string{"p a old dying", "q b old ready", "r c old ready"}, want: "-q",
		},
		{name: "nothing moves by itself OnDelete", spec: onDelete, nodes: []*pcorev1.Node{a, b}, pods: []string{"p a old ready", "q b old"}},
		{name: "what was deleted comes back new OnDelete", spec: onDelete, nodes: []*pcorev1.Node{a, b}, pods: []string{"q b old ready"}, want: "+a"},

		{name: "surge: a new pod beside the old one", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a, b}, pods: []string{"p a old ready", "q b old ready"}, want: "+a"},
		{name: "surge: it is waited for", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a, b}, pods: []string{"p a old ready", "q b old ready", "n a new"}},
		{name: "surge: then the old one goes", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a, b}, pods: []string{"p a old ready", "q b old ready", "n a new ready"}, want: "-p"},
		{name: "surge: an old one that isn't ready goes for the new one", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a}, pods: []string{"p a old", "n a new"}, want: "-p"},
		{name: "surge: where the old one isn't available, at once", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a, b, c}, pods: []string{"p a old", "q b old", "r c old ready"}, want: "+a +b +c"},
		{name: "surge: a third pod is too many", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a}, pods: []string{"p a old ready", "n a new", "o a old ready younger"}, want: "-o"},
		{
			name: "surge: a node that should run none keeps its pod while others lack one", spec: rolling("1", "0"),
			nodes: []*pcorev1.Node{makeNode("a", "mine:NoSchedule"), b}, pods: []string{"p a old ready", "q b old"}, want: "+b",
		},
		{
			name: "surge: …and loses it when they don't", spec: rolling("1", "0"),
			nodes: []*pcorev1.Node{makeNode("a", "mine:NoSchedule"), b}, pods: []string{"p a old ready", "q b new ready"}, want: "-p",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScope(t, tt.spec, tt.nodes...)
			for _, pod := range tt.pods {
				s.pods = append(s.pods, makePod(pod))
			}
			p, err := makePlan(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(p); got != tt.want {
				t.Errorf("plan %q, want %q", got, tt.want)
			}
		})
	}
}

// TestFailedPodsGoEverLater: the first goes at once, the next ones after a growing wait, on each node by itself.
func TestFailedPodsGoEverLater(t *testing.T) {
	s := newScope(t, nil, makeNode("a"), makeNode("b"))
	s.pods = []*pcorev1.Pod{makePod("p a new failed"), makePod("q b new ready")}
	var waits []time.Duration
	for range 12 {
		p, err := makePlan(s)
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, p.wait)
		s.now = s.now.Add(p.wait)
		if p.wait > 0 {
			if p, err = makePlan(s); err != nil {
				t.Fatal(err)
			}
		}
		if summary(p) != "-p" || len(p.replace) != 1 {
			t.Fatalf("plan %q", summary(p))
		}
		s.backoff.Replaced("a", s.now)
	}
	want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	s.pods[1], s.places = makePod("q b new failed"), nil
	if p, _ := makePlan(s); summary(p) != "-q" {
		t.Errorf("plan %q; the other node waits for nobody", summary(p))
	}
	s.now = s.now.Add(31 * time.Minute)
	if wait := s.backoff.Wait("a", s.now); wait != 0 {
		t.Errorf("still waiting %s", wait)
	}
}

// TestNames: names are the same each time, differ between nodes, and pass by those that are held.
func TestNames(t *testing.T) {
	s := newScope(t, nil, makeNode("a"), makeNode("b"))
	names := func() []string {
		p, err := makePlan(s)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range p.create {
			out = append(out, c.name)
		}
		return out
	}
	first := names()
	if len(first) != 2 || first[0] == first[1] || !slices.Equal(first, names()) {
		t.Fatalf("names %v, then %v", first, names())
	}
	dying := makePod("x a new failed dying")
	dying.Name = first[0]
	s.pods, s.places = append(s.pods, dying), nil
	s.foreign = map[string]bool{first[1]: true}
	second := names()
	if len(second) != 2 || slices.Contains(first, second[0]) || slices.Contains(first, second[1]) || second[0] == second[1] {
		t.Errorf("names %v while %v are held", second, first)
	}
}

// TestSurplus: revisions with pods count against the limit and stay.
func TestSurplus(t *testing.T) {
	for _, tt := range []struct {
		limit int32
		pods  []string
		want  []string
	}{
		{limit: 3},
		{limit: 2, want: []string{"net-r1"}},
		{limit: 0, want: []string{"net-r1", "net-r2", "net-r3"}},
		{limit: 1, pods: []string{"p a r1"}, want: []string{"net-r2", "net-r3"}},
		{limit: 0, pods: []string{"p a r2 failed dying", "q b new"}, want: []string{"net-r1", "net-r3"}},
	} {
		t.Run(fmt.Sprint(tt.limit, tt.pods), func(t *testing.T) {
			s := newScope(t, func(spec *pappsv1.DaemonSetSpec) { spec.RevisionHistoryLimit = &tt.limit }, makeNode("a"), makeNode("b"))
			s.aim(revision.NewHistory([]*pappsv1.ControllerRevision{makeRevision("r2", 2), makeRevision("r1", 1), makeRevision("r3", 3)}), makeRevision("new", 4))
			for _, pod := range tt.pods {
				s.pods = append(s.pods, makePod(pod))
			}
			var got []string
			for _, rev := range surplus(s) {
				got = append(got, rev.Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("surplus (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStatus: the numbers are upstream's, and the sentence says what is wrong.
func TestStatus(t *testing.T) {
	a, b, tainted := makeNode("a"), makeNode("b"), makeNode("t", "mine:NoSchedule")
	for _, tt := range []struct {
		name  string
		spec  func(*pappsv1.DaemonSetSpec)
		nodes []*pcorev1.Node
		pods  []string
		o     outcome
		// desired, current, misscheduled, ready, updated, available, unavailable
		want    [7]int32
		ready   corev1.ConditionStatus
		reason  string
		message string
	}{
		{name: "no node", ready: "True", reason: "NoMatchingNode", message: "No node matches, so there is nothing to run."},
		{
			name: "all there", nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new ready", "q b new ready"},
			want: [7]int32{2, 2, 0, 2, 2, 2, 0}, ready: "True", reason: "Available", message: "2 of 2 pods are updated and available.",
		},
		{
			name: "misscheduled", nodes: []*pcorev1.Node{a, tainted}, pods: []string{"p a new ready", "q t new ready"},
			want: [7]int32{1, 1, 1, 1, 1, 1, 0}, ready: "True", reason: "Available", message: "1 of 1 pods are updated and available.",
		},
		{
			name: "one is missing", nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new ready"},
			want: [7]int32{2, 1, 0, 1, 1, 1, 1}, ready: "False", reason: "Progressing", message: "1 of 2 pods are updated and available.",
		},
		{
			name: "the oldest speaks for the node", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a}, pods: []string{"n a new ready younger", "p a old ready"},
			want: [7]int32{1, 1, 0, 1, 0, 1, 0}, ready: "False", reason: "Progressing", message: "0 of 1 pods are updated and available.",
		},
		{
			name: "an ending pod still counts", nodes: []*pcorev1.Node{a}, pods: []string{"p a old ready dying"},
			want: [7]int32{1, 1, 0, 1, 0, 1, 0}, ready: "False", reason: "Progressing", message: "0 of 1 pods are updated and available.",
		},
		{
			name: "a pod failed", nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new ready", "q b new failed"},
			want: [7]int32{2, 2, 0, 1, 2, 1, 1}, ready: "False", reason: "PodFailed", message: "Pod q failed: PodFailed.",
		},
		{
			name: "what surges fails", spec: rolling("1", "0"), nodes: []*pcorev1.Node{a}, pods: []string{"p a old ready", "n a new failed younger"},
			want: [7]int32{1, 1, 0, 1, 0, 1, 0}, ready: "False", reason: "PodFailed", message: "Pod n failed: PodFailed.",
		},
		{
			name: "the API server refuses", nodes: []*pcorev1.Node{a}, o: outcome{createErr: fmt.Errorf("creating a pod: exceeded quota")},
			want: [7]int32{1, 0, 0, 0, 0, 0, 1}, ready: "False", reason: "FailedCreate", message: "creating a pod: exceeded quota",
		},
		{
			name: "old pods are fine OnDelete", spec: onDelete, nodes: []*pcorev1.Node{a, b}, pods: []string{"p a new ready", "q b old ready"},
			want: [7]int32{2, 2, 0, 2, 1, 2, 0}, ready: "True", reason: "Available", message: "2 of 2 pods are available. 1 of an older revision are replaced when they are deleted.",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScope(t, tt.spec, tt.nodes...)
			for _, pod := range tt.pods {
				s.pods = append(s.pods, makePod(pod))
			}
			st, _ := makeStatus(s, tt.o)
			got := [7]int32{
				st.DesiredNumberScheduled, st.CurrentNumberScheduled, st.NumberMisscheduled, st.NumberReady,
				st.UpdatedNumberScheduled, st.NumberAvailable, st.NumberUnavailable,
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("numbers (-want +got):\n%s", diff)
			}
			c, _ := condition.DaemonSet.Get(st.Conditions, pcorev1.ConditionReady)
			if c.Status != tt.ready || c.Reason != tt.reason || c.Message != tt.message {
				t.Errorf("Ready is %s, %s: %s", c.Status, c.Reason, c.Message)
			}
			if _, reconciling := condition.DaemonSet.Get(st.Conditions, pcorev1.ConditionReconciling); reconciling != (tt.ready == "False") {
				t.Errorf("conditions %+v", st.Conditions)
			}
			if st.ObservedGeneration != 1 || st.Columns["nodeSelector"] != "<none>" || st.Columns["selector"] != "app=net" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestMinReadySeconds: a ready pod counts as available once it has been ready for long enough, and that is when to look again.
func TestMinReadySeconds(t *testing.T) {
	s := newScope(t, func(spec *pappsv1.DaemonSetSpec) { spec.MinReadySeconds = 31 }, makeNode("a"))
	s.pods = []*pcorev1.Pod{makePod("p a new ready")} // for 30 seconds
	st, wait := makeStatus(s, outcome{})
	if st.NumberReady != 1 || st.NumberAvailable != 0 || wait != time.Second {
		t.Errorf("%d ready, %d available, look again after %s", st.NumberReady, st.NumberAvailable, wait)
	}
	s.now = s.now.Add(wait)
	if st, wait = makeStatus(s, outcome{}); st.NumberAvailable != 1 || wait != 0 {
		t.Errorf("%d available, look again after %s", st.NumberAvailable, wait)
	}
}

// TestBadSettings: what can't be understood is said in one sentence.
func TestBadSettings(t *testing.T) {
	for want, change := range map[string]func(*pappsv1.DaemonSetSpec){
		"spec.updateStrategy.rollingUpdate.maxUnavailable must be a number or a percentage": rolling("0", "some"),
		"spec.updateStrategy.rollingUpdate.maxSurge must be a number or a percentage":       rolling("x%", "0"),
		`spec.updateStrategy.type is "Sometimes"; it must be RollingUpdate or OnDelete`:     func(spec *pappsv1.DaemonSetSpec) { spec.UpdateStrategy.Type = "Sometimes" },
		"spec.selector is empty; name at least one label of the template":                   func(spec *pappsv1.DaemonSetSpec) { spec.Selector = &metav1.LabelSelector{} },
	} {
		spec := pappsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}
		change(&spec)
		if _, err := readSettings(&spec); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestPodTemplate: a pod carries the labels of its revision, the tolerations of a daemon, and leaves the set's template alone.
func TestPodTemplate(t *testing.T) {
	s := newScope(t, func(spec *pappsv1.DaemonSetSpec) {
		spec.Template.Spec.Tolerations = []corev1.Toleration{
			{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(30))},
			{Key: "mine", Operator: corev1.TolerationOpExists},
		}
	})
	before := s.set.DeepCopy()
	got := podTemplate(s)
	if diff := cmp.Diff(map[string]string{"app": "net", "controller-revision-hash": "new", "pod-template-generation": "2"}, got.Labels); diff != "" {
		t.Error(diff)
	}
	if n := len(got.Spec.Tolerations); n != 7 || got.Spec.Tolerations[0].TolerationSeconds != nil {
		t.Errorf("tolerations %+v", got.Spec.Tolerations)
	}
	if diff := cmp.Diff(before, s.set); diff != "" {
		t.Errorf("the set changed:\n%s", diff)
	}
}

// BenchmarkLook is what a look at a DaemonSet at rest costs beside reading the cache.
func BenchmarkLook(b *testing.B) {
	for _, nodes := range []int{500, 5000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			s := newScope(b, func(spec *pappsv1.DaemonSetSpec) { spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} })
			for i := range nodes {
				name := fmt.Sprint("node-", i)
				n := makeNode(name)
				n.Labels["a"] = "b"
				s.nodes = append(s.nodes, n)
				s.pods = append(s.pods, makePod(fmt.Sprintf("p%d %s new ready", i, name)))
			}
			b.ReportAllocs()
			for b.Loop() {
				s.places = nil
				if p, err := makePlan(s); err != nil || !p.idle() {
					b.Fatal(err, summary(p))
				}
				if st, _ := makeStatus(s, outcome{}); st.NumberAvailable != int32(nodes) {
					b.Fatal(st)
				}
			}
		})
	}
}
