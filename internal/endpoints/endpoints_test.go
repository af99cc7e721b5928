// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
	pdiscoveryv1 "github.com/pinnace-dev/pinnace/api/discovery/v1"
)

func aService(change ...func(*pcorev1.Service)) *pcorev1.Service {
	s := &pcorev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "svc-uid", Labels: map[string]string{"team": "a"}}}
	s.Spec = corev1.ServiceSpec{
		ClusterIP: "10.97.0.10", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func aPod(name, ip string, change ...func(*pcorev1.Pod)) *pcorev1.Pod {
	p := &pcorev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)}}
	p.Spec.NodeName = "node-1"
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for _, c := range change {
		c(p)
	}
	return p
}

func notReady(p *pcorev1.Pod)    { p.Status.Conditions = nil }
func terminating(p *pcorev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }
func portNumber(n int32) func(*pcorev1.Pod) {
	return func(p *pcorev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = n }
}

// brief renders a slice in one line.
func brief(s *pdiscoveryv1.EndpointSlice) string {
	out := string(s.AddressType)
	for _, p := range s.Ports {
		out += fmt.Sprintf(" %s=%d/%s", *p.Name, *p.Port, *p.Protocol)
	}
	for _, e := range s.Endpoints {
		out += " " + e.Addresses[0]
		for _, c := range []struct {
			letter string
			value  *bool
		}{{"r", e.Conditions.Ready}, {"s", e.Conditions.Serving}, {"t", e.Conditions.Terminating}} {
			if c.value != nil && *c.value {
				out += c.letter
			}
		}
	}
	return out
}

func briefs(slices []*pdiscoveryv1.EndpointSlice) []string {
	var out []string
	for _, s := range slices {
		out = append(out, brief(s))
	}
	return out
}

func TestPlanFromNothing(t *testing.T) {
	for name, c := range map[string]struct {
		service *pcorev1.Service
		pods    []*pcorev1.Pod
		want    []string
	}{
		"ready, not ready and terminating": {
			aService(), []*pcorev1.Pod{aPod("a", "10.0.0.1"), aPod("b", "10.0.0.2", notReady), aPod("c", "10.0.0.3", terminating), aPod("d", "10.0.0.4", notReady, terminating)},
			[]string{"IPv4 http=8080/TCP 10.0.0.1rs 10.0.0.2 10.0.0.3st 10.0.0.4t"},
		},
		"publishNotReadyAddresses": {
			aService(func(s *pcorev1.Service) { s.Spec.PublishNotReadyAddresses = true }),
			[]*pcorev1.Pod{aPod("a", "10.0.0.1", notReady), aPod("b", "10.0.0.2", terminating)},
			[]string{"IPv4 http=8080/TCP 10.0.0.1r 10.0.0.2rst"},
		},
		"pods that are done or have no address are not there": {
			aService(), []*pcorev1.Pod{
				aPod("a", "10.0.0.1", func(p *pcorev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
				aPod("b", "10.0.0.2", func(p *pcorev1.Pod) { p.Status.Phase = corev1.PodFailed }),
				aPod("c", "", func(p *pcorev1.Pod) { p.Status.PodIP, p.Status.PodIPs = "", nil }),
			},
			[]string{"IPv4"},
		},
		"nobody": {aService(), nil, []string{"IPv4"}},
		"pods whose named port differs get slices of their own": {
			aService(), []*pcorev1.Pod{aPod("a", "10.0.0.1"), aPod("b", "10.0.0.2", portNumber(9090))},
			[]string{"IPv4 http=8080/TCP 10.0.0.1rs", "IPv4 http=9090/TCP 10.0.0.2rs"},
		},
		"a named port that the pod lacks": {
			aService(), []*pcorev1.Pod{aPod("a", "10.0.0.1", func(p *pcorev1.Pod) { p.Spec.Containers[0].Ports = nil })},
			[]string{"IPv4 10.0.0.1rs"},
		},
		"a port without a target": {
			aService(func(s *pcorev1.Service) { s.Spec.Ports = []corev1.ServicePort{{Port: 81}} }), []*pcorev1.Pod{aPod("a", "10.0.0.1")},
			[]string{"IPv4 =81/TCP 10.0.0.1rs"},
		},
		"headless without ports": {
			aService(func(s *pcorev1.Service) { s.Spec.ClusterIP, s.Spec.Ports = corev1.ClusterIPNone, nil }), []*pcorev1.Pod{aPod("a", "10.0.0.1")},
			[]string{"IPv4 10.0.0.1rs"},
		},
		"two families": {
			aService(func(s *pcorev1.Service) {
				s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
			}),
			[]*pcorev1.Pod{aPod("a", "10.0.0.1", func(p *pcorev1.Pod) {
				p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
			})},
			[]string{"IPv4 http=8080/TCP 10.0.0.1rs", "IPv6 http=8080/TCP fd00::1rs"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Plan(c.service, c.pods, nil, nil)
			if diff := cmp.Diff(c.want, briefs(got.Create)); diff != "" || len(got.Update)+len(got.Delete) > 0 {
				t.Errorf("%s\nupdates %v, deletions %v", diff, briefs(got.Update), briefs(got.Delete))
			}
		})
	}
}

func TestPlanNamesLabelsAndReferences(t *testing.T) {
	service := aService(func(s *pcorev1.Service) {
		s.Spec.ClusterIP = corev1.ClusterIPNone
		s.Labels[discoveryv1.LabelServiceName] = "not mine to set"
	})
	pod := aPod("a", "10.0.0.1", func(p *pcorev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "a", "web" })
	got := Plan(service, []*pcorev1.Pod{pod}, nil, map[string]string{"node-1": "zone-1"}).Create[0]
	want := map[string]string{
		"team": "a", discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: ManagedByPods, corev1.IsHeadlessService: "",
	}
	if diff := cmp.Diff(want, got.Labels); diff != "" {
		t.Error(diff)
	}
	if ref := metav1.GetControllerOf(got); ref == nil || ref.UID != "svc-uid" || ref.Kind != "Service" || ref.APIVersion != "core.pinnace.dev/v1" {
		t.Errorf("owner: %+v", ref)
	}
	e := got.Endpoints[0]
	if *e.NodeName != "node-1" || *e.Zone != "zone-1" || *e.Hostname != "a" || e.TargetRef.Name != "a" || e.TargetRef.Kind != "Pod" {
		t.Errorf("endpoint: %+v", e)
	}
	again := Plan(service, []*pcorev1.Pod{pod}, nil, nil).Create[0]
	if got.Name != again.Name {
		t.Errorf("the name changes from plan to plan: %s, %s", got.Name, again.Name)
	}
	other := Plan(aService(func(s *pcorev1.Service) { s.UID = "another" }), nil, nil, nil).Create[0]
	if got.Name == other.Name {
		t.Error("a service that was made anew has slices of the same name, which are just being collected as garbage")
	}
}

// apply brings changes to a world of slices.
func apply(world []*pdiscoveryv1.EndpointSlice, c Changes) []*pdiscoveryv1.EndpointSlice {
	byName := map[string]*pdiscoveryv1.EndpointSlice{}
	for _, s := range world {
		byName[s.Name] = s
	}
	for _, s := range slices.Concat(c.Create, c.Update) {
		byName[s.Name] = s
	}
	for _, s := range c.Delete {
		delete(byName, s.Name)
	}
	var out []*pdiscoveryv1.EndpointSlice
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

func TestPlanWritesLittle(t *testing.T) {
	service := aService()
	var pods []*pcorev1.Pod
	for i := range 250 {
		pods = append(pods, aPod(fmt.Sprintf("p%03d", i), fmt.Sprintf("10.0.%d.%d", i/100, i%100)))
	}
	first := Plan(service, pods, nil, nil)
	if len(first.Create) != 3 || len(first.Create[0].Endpoints) != MaxPerSlice {
		t.Fatalf("250 pods are in %d slices", len(first.Create))
	}
	world := apply(nil, first)
	if again := Plan(service, pods, world, nil); !again.Empty() {
		t.Errorf("nothing has changed, and %d slices would be written", len(again.Create)+len(again.Update)+len(again.Delete))
	}

	notReady(pods[7])
	change := Plan(service, pods, world, nil)
	if len(change.Update) != 1 || len(change.Create)+len(change.Delete) != 0 {
		t.Errorf("one pod's change writes %d slices", len(change.Update))
	}
	world = apply(world, change)

	// A pod is replaced by another one: one write, since the newcomer takes the place that is rewritten anyway.
	replaced := append(slices.Clone(pods[:7]), pods[8:]...)
	replaced = append(replaced, aPod("new", "10.0.9.9"))
	change = Plan(service, replaced, world, nil)
	if len(change.Update) != 1 || len(change.Create)+len(change.Delete) != 0 {
		t.Errorf("a replaced pod writes %d, creates %d, deletes %d", len(change.Update), len(change.Create), len(change.Delete))
	}
	world = apply(world, change)

	// Everybody leaves: one slice stays as a sign that the service was looked at.
	change = Plan(service, nil, world, nil)
	world = apply(world, change)
	if len(world) != 1 || len(world[0].Endpoints) != 0 || world[0].Endpoints == nil {
		t.Errorf("left: %v", briefs(world))
	}
	if again := Plan(service, nil, world, nil); !again.Empty() {
		t.Error("the empty slice is written again")
	}
	// And back: the empty slice is filled, not a second one made.
	change = Plan(service, pods[:1], world, nil)
	if len(change.Update) != 1 || len(change.Create)+len(change.Delete) != 0 {
		t.Errorf("the first pod of a service writes %d, creates %d, deletes %d", len(change.Update), len(change.Create), len(change.Delete))
	}
}

func TestPlanLeavesStrangersAndRemovesLeftovers(t *testing.T) {
	service := aService()
	world := apply(nil, Plan(service, []*pcorev1.Pod{aPod("a", "10.0.0.1")}, nil, nil))
	old := apply(nil, Plan(aService(func(s *pcorev1.Service) { s.UID = "old" }), []*pcorev1.Pod{aPod("a", "10.0.0.1")}, nil, nil))
	v6 := world[0].DeepCopy()
	v6.Name, v6.AddressType = "web-v6", discoveryv1.AddressTypeIPv6
	change := Plan(service, []*pcorev1.Pod{aPod("a", "10.0.0.1")}, append(slices.Clone(world), old[0], v6), nil)
	var deleted []string
	for _, s := range change.Delete {
		deleted = append(deleted, s.Name)
	}
	slices.Sort(deleted)
	if diff := cmp.Diff(slices.Sorted(slices.Values([]string{old[0].Name, "web-v6"})), deleted); diff != "" || len(change.Create)+len(change.Update) != 0 {
		t.Errorf("%s\ncreates %v, updates %v", diff, briefs(change.Create), briefs(change.Update))
	}
	relabelled := aService(func(s *pcorev1.Service) { s.Labels = map[string]string{"team": "b"} })
	if change := Plan(relabelled, []*pcorev1.Pod{aPod("a", "10.0.0.1")}, world, nil); len(change.Update) != 1 || change.Update[0].Labels["team"] != "b" {
		t.Errorf("a service's new label: %+v", change)
	}
}

// TestPlanConverges: from any slices, in whatever state a crash left them, one plan leads to exactly the wanted
// endpoints, each once, no slice too full; and the next plan is empty.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		service := aService()
		var world []*pdiscoveryv1.EndpointSlice
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			var pods []*pcorev1.Pod
			for i := range rapid.IntRange(0, 130).Draw(t, "pods") {
				if rapid.IntRange(0, 9).Draw(t, "gone") == 0 {
					continue
				}
				port := int32(8080 + rapid.IntRange(0, 1).Draw(t, "port"))
				pods = append(pods, aPod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.0.0.%d", i), portNumber(port)))
			}
			change := Plan(service, pods, world, nil)
			if len(world) > 0 && rapid.Bool().Draw(t, "crash") {
				// Only some of the writes happen.
				change.Update = change.Update[:rapid.IntRange(0, len(change.Update)).Draw(t, "updates")]
				change.Delete = nil
				world = apply(world, change)
				change = Plan(service, pods, world, nil)
			}
			world = apply(world, change)
			seen := map[string]int{}
			for _, s := range world {
				if len(s.Endpoints) > MaxPerSlice {
					t.Fatalf("%d endpoints in a slice", len(s.Endpoints))
				}
				for _, e := range s.Endpoints {
					seen[fmt.Sprintf("%s:%d", e.TargetRef.Name, *s.Ports[0].Port)]++
				}
			}
			want := map[string]int{}
			for _, p := range pods {
				want[fmt.Sprintf("%s:%d", p.Name, p.Spec.Containers[0].Ports[0].ContainerPort)] = 1
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Fatal(diff)
			}
			if again := Plan(service, pods, world, nil); !again.Empty() {
				t.Fatalf("not at rest: %+v", again)
			}
		}
	})
}

func TestShrinks(t *testing.T) {
	service := aService()
	a, b := aPod("a", "10.0.0.1"), aPod("b", "10.0.0.2")
	world := apply(nil, Plan(service, []*pcorev1.Pod{a}, nil, nil))
	for name, c := range map[string]struct {
		pods []*pcorev1.Pod
		want bool
	}{
		"one more":   {[]*pcorev1.Pod{a, b}, false},
		"the same":   {[]*pcorev1.Pod{a}, false},
		"gone":       {nil, true},
		"another":    {[]*pcorev1.Pod{b}, true},
		"not ready":  {[]*pcorev1.Pod{aPod("a", "10.0.0.1", notReady), b}, true},
		"other port": {[]*pcorev1.Pod{aPod("a", "10.0.0.1", portNumber(9))}, false},
	} {
		if got := Shrinks(world, Plan(service, c.pods, world, nil)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !OnItsWay(aPod("a", "", notReady)) || OnItsWay(a) || OnItsWay(aPod("a", "", notReady, terminating)) {
		t.Error("OnItsWay")
	}
}

func TestMirror(t *testing.T) {
	service := aService(func(s *pcorev1.Service) { s.Spec.Selector = nil })
	source := &pcorev1.Endpoints{Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // Deprecated upstream, and still what people make by hand.
		Addresses:         []corev1.EndpointAddress{{IP: "192.0.2.1"}, {IP: "fd00::9"}},
		NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.2"}},
		Ports:             []corev1.EndpointPort{{Name: "http", Port: 8080}},
	}}}
	got := Mirror(service, source, nil)
	want := []string{"IPv4 http=8080/TCP 192.0.2.1r 192.0.2.2", "IPv6 http=8080/TCP fd00::9r"}
	var created []string
	for _, s := range got.Create {
		slices.SortFunc(s.Endpoints, func(a, b discoveryv1.Endpoint) int { return cmpStrings(a.Addresses[0], b.Addresses[0]) })
		created = append(created, brief(s))
	}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Error(diff)
	}
	world := apply(nil, got)
	if again := Mirror(service, source, world); !again.Empty() {
		t.Error("not at rest")
	}
	source.Labels = map[string]string{discoveryv1.LabelSkipMirror: "true"}
	for name, from := range map[string]*pcorev1.Endpoints{"gone": nil, "asks not to be mirrored": source} {
		if change := Mirror(service, from, world); len(change.Delete) != 2 || len(change.Create)+len(change.Update) != 0 {
			t.Errorf("%s: %+v", name, change)
		}
	}
}

func cmpStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
