// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package nodesuite

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	pcorev1 "github.com/pinnace-dev/pinnace/api/core/v1"
)

var (
	kills = flag.Int("kills", 0, "how many kills the chaos test does; 0 leaves it out")
	seed  = flag.Uint64("seed", 0, "the chaos test's seed; 0 draws one, which is printed")
	// chaosPods are there at any time.
	chaosPods = flag.Int("pods", 30, "how many pods the chaos test keeps running")
)

const (
	// settled is how long the machine may take after the last kill: a crash back-off lasts up to 5 minutes.
	settled = 6 * time.Minute
)

// chaos is a storm: pods come and go, and processes are killed.
type chaos struct {
	w         *world
	t         *testing.T
	random    *rand.Rand
	namespace string
	// wanted are the pods that there should be; next names the next one.
	wanted map[string]bool
	next   int
	done   map[string]int
}

// TestChaos kills containers, shims, containerd and the agent at random while pods come and go, and looks at what is left.
func TestChaos(t *testing.T) {
	if *kills == 0 {
		t.Skip("SKIPPED: no kills are asked for; `make chaos` asks for 200, which takes minutes")
	}
	w := newWorld(t)
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	fmt.Fprintf(progress, "chaos: %d kills over %d pods; the seed is %d\n", *kills, *chaosPods, *seed)
	before := w.traces()
	c := &chaos{w: w, t: t, random: rand.New(rand.NewPCG(*seed, 1)), namespace: w.env.Namespace(t), wanted: map[string]bool{}, done: map[string]int{}}
	began := time.Now()
	for range *chaosPods {
		c.create()
	}
	for range *kills {
		if err := c.kill(); err != nil {
			t.Fatal(err)
		}
		if c.random.IntN(3) == 0 {
			c.replace()
		}
		// Some kills meet a machine at rest, others one that is in the middle of things: the pause is part of the storm and waits for
		// nothing.
		time.Sleep(time.Duration(c.random.IntN(1500)) * time.Millisecond)
	}
	stormed := time.Since(began)
	if err := c.await("all pods Ready and no others, and running what they should", func(ctx context.Context) error {
		return errors.Join(c.allReady(ctx), c.matches(ctx))
	}); err != nil {
		t.Error(err)
	}
	calm := time.Since(began) - stormed
	for name := range maps.Clone(c.wanted) {
		c.remove(name)
	}
	if err := c.await("no pod left", c.allReady); err != nil {
		t.Error(err)
	}
	if err := c.await("no trace left", func(context.Context) error { return w.traces().compare(before) }); err != nil {
		t.Error(err)
	}
	clean := time.Since(began) - stormed - calm
	fmt.Fprintf(progress, "chaos: %v kills in %s, settled after %s, clean %s after that; %d pods made\n",
		c.done, stormed.Round(time.Second), calm.Round(time.Second), clean.Round(time.Second), c.next)
}

// create makes a pod; one in three has a sidecar, a volume in memory and a probe.
func (c *chaos) create() {
	c.t.Helper()
	name := fmt.Sprintf("chaos-%d", c.next)
	text := sleeper
	if c.next%3 == 0 {
		text = `{pod: {volumes: [{name: v, emptyDir: {medium: Memory}}], initContainers: [{name: side, restartPolicy: Always, args: [sleep]}],
  containers: [{args: [serve, "8080"], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 2}, volumeMounts: [{name: v, mountPath: /v}]}]}}`
	}
	c.next++
	pod, err := makePod(parseCase(c.t, text), c.namespace)
	if err != nil {
		c.t.Fatal(err)
	}
	pod.Name = name
	if err := c.w.client.Create(c.t.Context(), pod); err != nil {
		c.t.Fatal(err)
	}
	c.wanted[name] = true
}

func (c *chaos) remove(name string) {
	c.t.Helper()
	pod := &pcorev1.Pod{}
	pod.Namespace, pod.Name = c.namespace, name
	if err := client.IgnoreNotFound(c.w.client.Delete(c.t.Context(), pod)); err != nil {
		c.t.Fatal(err)
	}
	delete(c.wanted, name)
}

// replace is the load: one pod goes, another comes.
func (c *chaos) replace() {
	names := slices.Sorted(maps.Keys(c.wanted))
	c.remove(names[c.random.IntN(len(names))])
	c.create()
}

// kill does one of the four kills.
func (c *chaos) kill() error {
	ctx := c.t.Context()
	dice := c.random.IntN(100)
	switch {
	case dice < 50:
		c.done["container"]++
		return c.killOne(c.payloads)
	case dice < 76:
		c.done["shim"]++
		return c.killOne(func() []int { return slices.Collect(maps.Values(c.w.shims())) })
	case dice < 88:
		c.done["containerd"]++
		return c.w.node.Restart(ctx, syscall.SIGKILL)
	}
	c.done["agent"]++
	return errors.Join(c.w.killAgent(ctx), c.w.runAgent(ctx))
}

// killOne kills one of the processes that there are, as soon as there is one: in the beginning no pod has started yet.
func (c *chaos) killOne(processes func() []int) error {
	return poll(c.t.Context(), patience, func(context.Context) error {
		pids := processes()
		if len(pids) == 0 {
			return errors.New("there is nothing to kill")
		}
		slices.Sort(pids)
		return ignoreGone(syscall.Kill(pids[c.random.IntN(len(pids))], syscall.SIGKILL))
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// payloads are the processes in the cgroups of all pods, pause processes too.
func (c *chaos) payloads() []int {
	pods, err := c.pods(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	var out []int
	for _, pod := range pods {
		out = append(out, c.w.processesOf(&pod)...)
	}
	return out
}

func (c *chaos) pods(ctx context.Context) ([]pcorev1.Pod, error) {
	var list pcorev1.PodList
	err := c.w.client.List(ctx, &list, client.InNamespace(c.namespace))
	return list.Items, err
}

// await asks until there is nothing to complain of.
func (c *chaos) await(what string, complain func(context.Context) error) error {
	if err := poll(c.t.Context(), settled, complain); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// allReady complains of pods that aren't Ready, are missing, or are too many.
func (c *chaos) allReady(ctx context.Context) error {
	pods, err := c.pods(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for i := range pods {
		p := &pods[i]
		switch {
		case !c.wanted[p.Name]:
			failures = append(failures, fmt.Errorf("%s should be gone", p.Name))
		case !podReady(p):
			failures = append(failures, fmt.Errorf("%s is %s", p.Name, p.Status.Columns["status"]))
		}
	}
	if len(pods) < len(c.wanted) {
		failures = append(failures, fmt.Errorf("there are %d of %d pods", len(pods), len(c.wanted)))
	}
	return errors.Join(failures...)
}

func podReady(p *pcorev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}
