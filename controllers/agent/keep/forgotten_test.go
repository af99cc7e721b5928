// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"

	"github.com/pinnace-dev/pinnace/internal/podnetwork"
	"github.com/pinnace-dev/pinnace/internal/runtime/stray"
)

// names are what a plan would end, for tests to compare.
func (f *forgotten) names() []string {
	var out []string
	for _, s := range f.Shims {
		out = append(out, "shim "+s.ID)
	}
	for _, n := range f.Netns {
		out = append(out, "netns "+n.Path)
	}
	for _, l := range f.leases {
		out = append(out, "address "+l.Path)
	}
	for _, b := range f.Bundles {
		out = append(out, "bundle "+b.Path)
	}
	return out
}

func TestPlanForgotten(t *testing.T) {
	since, before, after, long := now.Add(-time.Minute), now.Add(-2*time.Minute), now.Add(-time.Second), now.Add(-makingMost)
	found := func(f stray.Found, leases ...podnetwork.Lease) forgotten {
		f.Since = since
		return forgotten{Found: f, leases: leases}
	}
	shim := stray.Shim{ID: "id", Age: shimAge, Folderless: true}
	with := func(change func(s *stray.Shim)) forgotten {
		s := shim
		change(&s)
		return found(stray.Found{Shims: []stray.Shim{s}})
	}
	lease := func(l podnetwork.Lease) forgotten {
		l.Path = "a"
		return found(stray.Found{}, l)
	}
	for _, c := range []struct {
		name  string
		found forgotten
		ids   []string
		infos []string
		want  []string
	}{
		{"a forgotten shim", with(func(*stray.Shim) {}), nil, nil, []string{"shim id"}},
		{"a shim that the runtime names", with(func(*stray.Shim) {}), []string{"id"}, nil, nil},
		{"a shim with a folder", with(func(s *stray.Shim) { s.Folderless = false }), nil, nil, nil},
		{"a shim with processes", with(func(s *stray.Shim) { s.Busy = true }), nil, nil, nil},
		{"a shim that has just begun", with(func(s *stray.Shim) { s.Age = shimAge - 1 }), nil, nil, nil},
		{"a shim whose ID has a folder anew", found(stray.Found{Shims: []stray.Shim{shim}, Bundles: []stray.Bundle{{ID: "id", Made: before}}}), nil, nil, nil},
		{"a shim and its half removed folder", found(stray.Found{Shims: []stray.Shim{shim}, Bundles: []stray.Bundle{{ID: "id", Path: ".id", Dropped: true, Made: before}}}), nil, nil,
			[]string{"shim id", "bundle .id"}},

		{"a namespace of a dead runtime", found(stray.Found{Netns: []stray.Netns{{Path: "/n/cni-1", Made: before}}}), nil, []string{"{}"}, []string{"netns /n/cni-1"}},
		{"a namespace that a process is in", found(stray.Found{Netns: []stray.Netns{{Path: "/n/cni-1", Made: before, Used: true}}}), nil, nil, nil},
		{"a namespace that is being made", found(stray.Found{Netns: []stray.Netns{{Path: "/n/cni-1", Made: after}}}), nil, nil, nil},
		{"a namespace of long ago", forgotten{Found: stray.Found{Since: long.Add(-time.Hour), Netns: []stray.Netns{{Path: "/n/cni-1", Made: long}}}}, nil, nil, []string{"netns /n/cni-1"}},
		{"a namespace that a dead sandbox has", found(stray.Found{Netns: []stray.Netns{{Path: "/n/cni-1", Made: before}}}), nil, []string{`{}`, `{"path":"/var/n/cni-1"}`}, nil},
		{"nobody knows since when the runtime serves", forgotten{Found: stray.Found{Netns: []stray.Netns{{Path: "/n/cni-1", Made: long}}}}, nil, nil, nil},

		{"an address of nobody", lease(podnetwork.Lease{Sandbox: "id", Made: before}), nil, nil, []string{"address a"}},
		{"an address of a sandbox", lease(podnetwork.Lease{Sandbox: "id", Made: before}), []string{"id"}, nil, nil},
		{"an address whose namespace is there", lease(podnetwork.Lease{Sandbox: "id", Made: before, Used: true}), nil, nil, nil},
		{"an address that was just given", lease(podnetwork.Lease{Sandbox: "id", Made: after}), nil, nil, nil},
		{"an address of a bundle that the runtime didn't load", found(stray.Found{Bundles: []stray.Bundle{{ID: "id", Made: before}}}, podnetwork.Lease{Path: "a", Sandbox: "id", Made: before}), nil, nil, nil},

		{"a bundle", found(stray.Found{Bundles: []stray.Bundle{{ID: "id", Path: "id", Made: before}}}), nil, nil, nil},
		{"a bundle that is being removed", found(stray.Found{Bundles: []stray.Bundle{{ID: "id", Path: ".id", Dropped: true, Made: after}}}), nil, nil, nil},
		{"a bundle that a dead runtime was removing", found(stray.Found{Bundles: []stray.Bundle{{ID: "id", Path: ".id", Dropped: true, Made: before}}}), nil, nil, []string{"bundle .id"}},
	} {
		ids := map[string]bool{}
		for _, id := range c.ids {
			ids[id] = true
		}
		got := planForgotten(c.found, ids, c.infos, now)
		if diff := cmp.Diff(c.want, got.names()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestPlanForgottenIsSafe: whatever there is, nothing goes that the runtime names, that runs, or that may be being made.
func TestPlanForgottenIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// The runtime began a minute ago at most: whatever is being made now is younger than that and than makingMost.
		found := forgotten{Found: stray.Found{Since: now.Add(-time.Duration(rapid.IntRange(0, 60).Draw(t, "since")) * time.Second)}}
		begun := map[string]bool{}
		ids := map[string]bool{}
		at := func(id string) time.Time {
			if begun[id] = rapid.Bool().Draw(t, "being made"); begun[id] {
				return found.Since.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "after")) * time.Second)
			}
			return now.Add(-time.Duration(rapid.IntRange(0, 1200).Draw(t, "age")) * time.Second)
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "sandboxes") {
			id := fmt.Sprint("id", i)
			made := at(id)
			ids[id] = !begun[id] && rapid.Bool().Draw(t, "named")
			// A sandbox that is being made has its folder before it has its shim.
			folder := begun[id] || rapid.Bool().Draw(t, "folder")
			found.Shims = append(found.Shims, stray.Shim{ID: id, Age: now.Sub(made), Folderless: !folder, Busy: rapid.Bool().Draw(t, "busy")})
			found.Netns = append(found.Netns, stray.Netns{Path: "/n/" + id, Made: made, Used: rapid.Bool().Draw(t, "used")})
			found.leases = append(found.leases, podnetwork.Lease{Path: id, Sandbox: id, Made: made})
			if folder {
				found.Bundles = append(found.Bundles, stray.Bundle{ID: id, Path: id, Made: made})
			}
		}
		got := planForgotten(found, ids, nil, now)
		for _, s := range got.Shims {
			if begun[s.ID] || ids[s.ID] || s.Busy {
				t.Fatalf("the shim %+v mustn't go", s)
			}
		}
		for _, n := range got.Netns {
			if begun[n.Path[len("/n/"):]] || n.Used {
				t.Fatalf("the namespace %+v mustn't go", n)
			}
		}
		for _, l := range got.leases {
			if begun[l.Sandbox] || ids[l.Sandbox] {
				t.Fatalf("the address %+v mustn't go", l)
			}
		}
	})
}

// machine holds what a test says and notes what was ended.
type machine struct {
	found stray.Found
	fails error
	ended []string
}

func (m *machine) Find(context.Context) (stray.Found, error) { return m.found, m.fails }

func (m *machine) EndShim(_ context.Context, s stray.Shim) error {
	m.ended = append(m.ended, "shim "+s.ID)
	return errors.New("it doesn't end")
}

func (m *machine) RemoveNetns(n stray.Netns) error {
	m.ended = append(m.ended, "netns "+n.Path)
	return nil
}

func (m *machine) RemoveBundle(b stray.Bundle) error {
	m.ended = append(m.ended, "bundle "+b.Path)
	return nil
}

// addresses are leases in memory.
type addresses struct {
	machine *machine
	leases  []podnetwork.Lease
}

func (a addresses) List() ([]podnetwork.Lease, error) { return a.leases, nil }

func (a addresses) Release(l podnetwork.Lease) error {
	a.machine.ended = append(a.machine.ended, "address "+l.Path)
	return nil
}

func TestEndForgotten(t *testing.T) {
	old := now.Add(-time.Hour)
	m := &machine{found: stray.Found{
		Since:   now.Add(-time.Minute),
		Shims:   []stray.Shim{{ID: "sandbox", Age: time.Hour, Folderless: true}, {ID: "container", Age: time.Hour, Folderless: true}, {ID: "lost", Age: time.Hour, Folderless: true}},
		Netns:   []stray.Netns{{Path: "/n/cni-lost", Made: old}, {Path: "/n/cni-dead", Made: old}, {Path: "/n/cni-used", Made: old, Used: true}},
		Bundles: []stray.Bundle{{Path: ".half", ID: "half", Made: old, Dropped: true}},
	}}
	runtime := &stub{
		sandboxes:  []*runtimeapi.PodSandbox{{Id: "sandbox"}, {Id: "just removed"}},
		containers: []*runtimeapi.Container{{Id: "container"}},
		infos:      map[string]string{"sandbox": `{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/n/cni-dead"}]}}}`},
		fails:      errors.New("the runtime is away"),
	}
	k := New(Options{Runtime: runtime, Now: func() time.Time { return now }, Machine: m, Addresses: addresses{m, []podnetwork.Lease{
		{Path: "10.0.0.1", Sandbox: "sandbox", Made: old}, {Path: "10.0.0.2", Sandbox: "lost", Made: old},
	}}})
	if err := k.EndForgotten(t.Context()); !errors.Is(err, runtime.fails) || len(m.ended) > 0 {
		t.Errorf("without the runtime's word %v was ended: %v", m.ended, err)
	}
	runtime.fails = nil
	if err := k.EndForgotten(t.Context()); err == nil {
		t.Error("that a shim doesn't end isn't told")
	}
	if diff := cmp.Diff([]string{"shim lost", "netns /n/cni-lost", "address 10.0.0.2", "bundle .half"}, m.ended); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
	// At rest nobody is asked for details.
	runtime.asked, m.ended, m.found = nil, nil, stray.Found{Since: m.found.Since, Netns: m.found.Netns[2:]}
	if err := k.EndForgotten(t.Context()); err != nil || len(runtime.asked) > 0 {
		t.Errorf("%v were asked for their details, %v", runtime.asked, err)
	}
	if m.fails = errors.New("no"); !errors.Is(k.EndForgotten(t.Context()), m.fails) || !slices.Equal(m.ended, []string{"address 10.0.0.2"}) {
		t.Errorf("when the machine can't be looked at, %v was ended", m.ended)
	}
}
