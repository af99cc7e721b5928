// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	show = flag.Bool("show", false, "show both final states of every scenario")
	only = flag.String("only", "", "run the scripts on one `side` alone, upstream or ours, and compare nothing")
)

// scenario is one script. Its name is "kind/what happens".
type scenario struct {
	name string
	run  func(*script)
}

// atOnce is how many scenarios run side by side. They wait more than they work.
const atOnce = "20"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// scenarios are all of them, kind by kind.
func scenarios() []scenario {
	var out []scenario
	for _, list := range [][]scenario{
		deploymentScenarios, rolloutScenarios, replicaSetScenarios, statefulSetScenarios, daemonSetScenarios, jobScenarios, jobPolicyScenarios,
		cronJobScenarios, budgetScenarios,
	} {
		out = append(out, list...)
	}
	return out
}

// outcome is what came of one scenario.
type outcome struct {
	listed, unlisted []string
	took             time.Duration
}

func TestControllerOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the controller oracle needs an API server, and -short was given.")
	}
	differences, err := loadDifferences(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	beats.run(t, w.ours)
	for i := range commonNodes {
		for _, s := range []*side{w.native, w.ours} {
			if err := s.addNode(t.Context(), fmt.Sprintf("%s-%d", commonPool, i), commonPool, "{}"); err != nil {
				t.Fatal(err)
			}
		}
	}
	var mu sync.Mutex
	outcomes := map[string]outcome{}
	all := scenarios()
	t.Run("scenarios", func(t *testing.T) {
		for number, one := range all {
			t.Run(one.name, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				o := w.play(t, one, number, differences)
				o.took = time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				outcomes[one.name] = o
			})
		}
	})
	report(t, all, outcomes, differences)
}

// report prints the count, and fails on listed differences that no longer occur.
func report(t *testing.T, all []scenario, outcomes map[string]outcome, differences []*difference) {
	t.Helper()
	agree := 0
	for _, one := range all {
		o, ok := outcomes[one.name]
		if !ok {
			continue // it failed, or wasn't asked for
		}
		if len(o.listed)+len(o.unlisted) == 0 {
			agree++
		}
		for _, d := range differences {
			for _, id := range o.listed {
				if d.ID == id {
					d.seen++
				}
			}
		}
	}
	for _, d := range differences {
		fmt.Printf("  %4d scenarios  %s\n", d.seen, d.ID)
		if d.seen == 0 && len(outcomes) == len(all) {
			t.Errorf("%s lists %s, which no longer occurs: take it out there and run 'go test ./test/conformance/controllers -run TestParity -update'", differencesFile, d.ID)
		}
	}
	fmt.Printf("controller oracle: %d of %d agree, %d listed differences\n", agree, len(all), len(differences))
}

// play runs one scenario on both sides at once, and compares.
func (w *world) play(t *testing.T, one scenario, number int, differences []*difference) outcome {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	namespace := fmt.Sprintf("oracle-%d", number)
	ensureNamespace(t, w.client, namespace)
	var scripts []*script
	var wg sync.WaitGroup
	faults := make([]string, 2)
	for _, s := range []*side{w.native, w.ours} {
		if *only != "" && s.name != *only {
			continue
		}
		script := newScript(ctx, s, namespace)
		s.enter(namespace, script)
		place := len(scripts)
		scripts = append(scripts, script)
		wg.Go(func() { faults[place] = guarded(one, script) })
	}
	wg.Wait()
	if faults[0]+faults[1] != "" {
		for i, script := range scripts {
			if faults[i] != "" {
				t.Errorf("%s: %s", script.side.name, faults[i])
				t.Logf("the state of %s:\n%s", script.side.name, script.snapshot())
			}
		}
		t.FailNow()
	}
	var lines []string
	if *only == "" {
		lines = settle(scripts[0], scripts[1])
	}
	if *show {
		for _, script := range scripts {
			t.Logf("the state of %s:\n%s", script.side.name, script.snapshot())
		}
	}
	for _, script := range scripts {
		for name, sentence := range script.breaches() {
			if script.side.ours {
				lines = append(lines, fmt.Sprintf("rule %s: ours breaks it: %s", name, sentence))
				continue
			}
			// Upstream's bounds slip for a moment now and then (docs/adr/0051); that is worth a word, and no more.
			t.Logf("upstream breaks the rule %s: %s", name, sentence)
		}
	}
	var o outcome
	o.listed, o.unlisted = judge(one.name, lines, differences)
	if len(o.unlisted) > 0 {
		t.Errorf("the sides differ:\n    %s", strings.Join(o.unlisted, "\n    "))
	}
	return o
}

// guarded runs the script, and returns how it failed.
func guarded(one scenario, s *script) (fault string) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			fault = f.sentence
		}
	}()
	one.run(s)
	return ""
}

const (
	// quiet is how long nothing may happen in a namespace before its state counts as final.
	quiet = 700 * time.Millisecond
	// patience is how much longer two states that differ are given, once nothing happens any more, to agree.
	patience = 6 * time.Second
)

// settle waits until nothing happens any more on both sides, and returns where their states differ.
func settle(native, ours *script) []string {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(limit)
	for {
		still := min(native.still(), ours.still())
		if still >= quiet {
			lines := compare(native.snapshot(), ours.snapshot())
			if len(lines) == 0 || still > patience || time.Now().After(deadline) {
				return lines
			}
		} else if time.Now().After(deadline) {
			return []string{"the sides don't come to rest"}
		}
		<-ticker.C
	}
}

// still is for how long nothing has happened.
func (s *script) still() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.last)
}

func (s *script) breaches() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for name, sentence := range s.broken {
		out[name] = sentence
	}
	return out
}

func (s state) String() string {
	var out []string
	for key, value := range s {
		out = append(out, "    "+key+" = "+value)
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}
